"""Devices that are timed on: which there are, and the lock that keeps a device to one cell at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kfpbench.errors import StoreError


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


@contextmanager
def device_held(name: str) -> Iterator[None]:
    """Hold a device ("cpu", "cuda", "cuda:1") of this host until the block ends; waits for it first.

    A cell on the processors is alone on the host: no other cell runs beside it. A cell on a GPU is alone on that GPU;
    cells on other GPUs of the host may run beside it. The locks are of the kernel (flock on files in the user's own
    temporary folder), so that those of a process that dies are free at once; cells of another user, or in a container
    with a temporary folder of its own, are not seen. Where there is no flock (Windows) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    on_gpu = name != "cpu"
    with ExitStack() as stack:
        # always in this order: two cells never wait for each other
        wanted = [("cpu", fcntl.LOCK_SH if on_gpu else fcntl.LOCK_EX)]
        if on_gpu:
            wanted.append((_gpu_name(name), fcntl.LOCK_EX))
        for device, kind in wanted:
            descriptor = os.open(_lock_folder() / f"{device}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)  # which frees it
            fcntl.flock(descriptor, kind)
        yield


def _gpu_name(name: str) -> str:
    """The same name in every process, whatever each of them is allowed to see."""
    import torch

    properties = torch.cuda.get_device_properties(name)
    return str(getattr(properties, "uuid", name)).replace(":", "-")


def _lock_folder() -> Path:
    """A folder of this user alone, so that nobody else can put links there or hold its locks."""
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"kfpbench-devices-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != user or status.st_mode & 0o022:
        raise StoreError(
            "the folder of the device locks can be written to by others",
            remedy="Remove it, or set TMPDIR to a folder of your own.",
            where=str(folder),
        )
    return folder
