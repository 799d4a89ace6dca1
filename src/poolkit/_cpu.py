"""How many CPUs this process may really use."""

import math
import os
from pathlib import Path

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
    quota = _cgroup_quota(Path(cgroup_root))
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


def _cgroup_quota(root: Path) -> float | None:
    """Return the smallest CPU quota from this process's group up to the root, in CPUs."""
    quotas: list[float] = []
    for group in _own_groups(root):
        for folder in (group, *group.parents):
            if root not in (folder, *folder.parents):
                break
            quota = _folder_quota(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _own_groups(root: Path) -> list[Path]:
    """Return this process's folders below `root`: one for version 2, one for version 1's cpu."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [root]
    groups = [root, root / "cpu"]  # what a container sees when the paths name the host's tree
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups.append(root / path.lstrip("/"))
        elif "cpu" in controllers.split(","):
            groups += [root / name / path.lstrip("/") for name in ("cpu", controllers)]
    return groups


def _folder_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
            return None if limit == "max" else int(limit) / int(period)
        limit_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
        return limit_us / period_us if limit_us > 0 else None
    except (OSError, ValueError):
        return None
