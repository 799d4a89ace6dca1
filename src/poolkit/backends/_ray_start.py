"""Starting Ray on this machine, and joining a cluster: quietly, and with nothing left behind."""

import contextlib
import importlib
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any, Final

from .._errors import UnsupportedError

LOCAL: Final = "local"
"""What Ray calls the address of a cluster that does not exist yet."""

# How soon a cluster must answer, in seconds.
_ANSWERS: Final = 10.0
# How long the name of the folder for temporary files may be: a socket's is up to 107 characters
# long, of which Ray's part and ours take 87.
_MOST: Final = 20
# What Ray does by default, and must not do for us.
_OFF: Final = ("ENABLE_RAY_CLUSTER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV")
_QUIET: Final = {"log_to_driver": False, "logging_level": logging.ERROR}


def check_address(address: str) -> None:
    """Check what is given as the address of a cluster.

    Raises:
        UnsupportedError: It is that of a server for Ray's client, which carries no streams.
        ValueError: It is none.
    """
    if "://" in address:
        raise no_client()
    if address not in ("auto", LOCAL) and not address.rpartition(":")[2].isdecimal():
        raise ValueError(f'address must be "host:port", "auto" or "local", not {address!r}')


def no_client() -> UnsupportedError:
    """Return the error for a connection through Ray's client."""
    return UnsupportedError(
        "ray",
        "connections through Ray's client (ray://)",
        'give the address of the cluster itself, "host:port", or "auto" on one of its machines',
    )


def join_cluster(ray: Any, address: str) -> None:
    """Connect this process to a cluster.

    Raises:
        ConnectionError: There is none.
    """
    host, _, port = address.rpartition(":")
    if address != "auto":  # Ray itself would try for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWERS).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error
    ray.init(address=address, **_QUIET)


def start_cluster(ray: Any, cpus: int) -> str:
    """Start a cluster of this machine alone, and connect this process to it.

    Returns:
        A folder that is to be removed once the cluster has ended.
    """
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="poolkit-ray-", dir=parent if len(parent) <= _MOST else "/tmp")
    try:
        with _as_is_and_here():
            ray.init(
                address=LOCAL,
                num_cpus=cpus,
                include_dashboard=False,
                _temp_dir=f"{folder}/r",  # which Ray opens to all users
                **_QUIET,
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Else a thread of Ray's prints on stdout that a worker has died, which our errors tell.
    with contextlib.suppress(Exception):
        driver = importlib.import_module("ray._private.worker").global_worker
        driver.threads_stopped.set()
        driver.gcs_error_subscriber.close()
    return folder


@contextlib.contextmanager
def _as_is_and_here() -> Iterator[None]:
    """Have Ray listen on loopback only, and give its workers this process's environment.

    It listens everywhere on Linux; and where the program was started by ``uv run``, each worker
    would be, too, though it finds all modules anyway.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = {name: getattr(constants, name) for name in _OFF if hasattr(constants, name)}
    for name in before:
        setattr(constants, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
