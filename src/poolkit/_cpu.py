"""How many CPUs this process may really use."""

import math
import os

from ._public import public


@public
def available_cpus(*, cgroup_root: str = "/sys/fs/cgroup") -> int:
    """Return the number of CPUs this process may use, at least 1.

    The machine's count is cut down to the process's affinity mask (`taskset`, Slurm) and to the
    CPU quota of its control group (containers), rounded up: a quota of 1.5 CPUs gives 2.

    Args:
        cgroup_root: Where the control-group file system is mounted; both versions are understood.

    Returns:
        The count. It is read anew at each call, as limits can change.
    """
    count = _affinity()
    quota = _cgroup_quota(cgroup_root.rstrip("/"))
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def _affinity() -> int:
    # -X cpu_count and PYTHON_CPU_COUNT, from 3.13 on, show only in os.process_cpu_count.
    process_cpu_count = getattr(os, "process_cpu_count", None)
    if process_cpu_count is not None:
        return process_cpu_count() or 1
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have no such call
        return os.cpu_count() or 1


# Paths are strings here, as pathlib would be a good part of what a pool takes to start.


def _cgroup_quota(root: str) -> float | None:
    """Return the smallest CPU quota from this process's group up to the root, in CPUs."""
    quotas: list[float] = []
    for group in _own_groups(root):
        names = group[len(root) :].split("/")  # the first is empty
        for count in range(1, len(names) + 1):
            quotas += _folder_quota(root + "/".join(names[:count]))
    return min(quotas, default=None)


def _own_groups(root: str) -> list[str]:
    """Return this process's folders below `root`: one for version 2, one for version 1's cpu."""
    try:
        lines = _read("/proc/self/cgroup").splitlines()
    except OSError:
        return [root]
    groups = [root, f"{root}/cpu"]  # what a container sees when the paths name the host's tree
    for line in lines:
        _, controllers, path = line.split(":", 2)
        path = path.rstrip("/")
        if controllers == "":
            groups.append(root + path)
        elif "cpu" in controllers.split(","):
            groups += [f"{root}/{name}{path}" for name in ("cpu", controllers)]
    return groups


def _folder_quota(folder: str) -> list[float]:
    """Return a folder's quota, if it has one that can be read."""
    try:
        if os.access(f"{folder}/cpu.max", os.F_OK):
            limit, period = _read(f"{folder}/cpu.max").split()
            return [] if limit == "max" else [int(limit) / int(period)]
        limit_us = int(_read(f"{folder}/cpu.cfs_quota_us"))
        period_us = int(_read(f"{folder}/cpu.cfs_period_us"))
        return [limit_us / period_us] if limit_us > 0 else []
    except (OSError, ValueError):
        return []


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123
        return file.read()
