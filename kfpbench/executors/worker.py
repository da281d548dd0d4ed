"""The process that computes cells for a run: it reads them from standard input and answers on standard output.

It writes nothing into the run folder. It ends when its input does, at once, also in the middle of a cell: the run that
it works for is then gone.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from kfpbench.cache.use import using
from kfpbench.errors import CapabilityError, DiskFullError
from kfpbench.executors.frames import read_frame, write_frame
from kfpbench.executors.setting import Setting, adopt_setting, store_of
from kfpbench.runner.executor_options import SHARED_NOTE
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell

_GIB = 2**30
_SLACK = _GIB // 4  # of the limit on private memory: stacks of threads, and what allocators keep ready
_TIMES = ("seconds_per_image", "seconds_per_image_batch1", "setup_seconds")


def main() -> None:
    """Serve until the input ends."""
    inbox, outbox = _take_streams()
    faulthandler.enable()
    _offer_to_the_oom_killer()
    messages: queue.SimpleQueue[tuple[dict[str, Any], dict[str, bytes]]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox, messages), daemon=True).start()
    setting = Setting(**messages.get()[0])
    if setting.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = setting.gpu
    try:
        adopt_setting(setting)
        store = store_of(setting)
    except Exception as error:  # a plugin may fail in any way; the run is told, and ends
        write_frame(outbox, {"refused": f"{type(error).__name__}: {error}"})
        return
    # imported before the first cell begins: they are no cell's time or memory
    import kfpbench.runner.sample_cell
    import kfpbench.runner.spectrum_cell  # noqa: F401
    from kfpbench.runner.materials import Materials

    materials = Materials()
    while True:
        cell = Cell(**messages.get()[0])
        with using(store), nullcontext() if setting.share_device else _device_of(cell):
            write_frame(outbox, {"began": cell.id})
            try:
                record, files = compute(cell, materials, shared=setting.share_device)
            except DiskFullError as error:
                write_frame(outbox, {"full": str(error)})
                continue
        write_frame(outbox, {"record": record.to_json()}, files)


def compute(cell: Cell, materials: Any, *, shared: bool) -> tuple[CellRecord, dict[str, bytes]]:
    """Run a cell into a temporary folder; returns its record and the files by path in the run folder."""
    from kfpbench.runner.run_cell import run_cell

    with tempfile.TemporaryDirectory(prefix="kfpbench-cell-", ignore_cleanup_errors=True) as scratch:
        folder = RunFolder(Path(scratch))
        with _memory_limited(cell):
            record = run_cell(cell, materials, folder)
        files = {name: (folder.path / name).read_bytes() for name in record.files.values()}
    record = _with_memory_named(record)
    return (_marked(record) if shared else record), files


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for messages alone: what a plugin prints goes to standard error."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox


def _listen(inbox: IO[bytes], messages: queue.SimpleQueue[Any]) -> None:
    """Pass messages on; end the process when the input ends, whatever the main thread does."""
    while (message := read_frame(inbox)) is not None:
        messages.put(message)
    os._exit(0)


@contextmanager
def _device_of(cell: Cell) -> Iterator[None]:
    """Hold the cell's device; a cell for an absent one runs at once, and is skipped for that reason."""
    from kfpbench.executors.devices import device_held
    from kfpbench.runner.materials import choose_device

    try:
        name = str(choose_device(cell.spec["device"]))
    except CapabilityError:
        yield
        return
    with device_held(name):
        yield


@contextmanager
def _memory_limited(cell: Cell) -> Iterator[None]:
    """Refuse private memory beyond the cell's budget (Linux, cells on the processors): then an allocation fails, which
    is a failure like any other. CUDA reserves far more addresses than it uses.
    """
    budget = cell.spec["budget"]["memory_gib"]
    held = _private_bytes()
    if budget is None or held is None or cell.spec["device"] != "cpu":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = held + int(budget * _GIB) + _SLACK
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _private_bytes() -> int | None:
    """What RLIMIT_DATA counts of this process (VmData); None elsewhere than on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)


def _with_memory_named(record: CellRecord) -> CellRecord:
    """The record, with a reason that begins "out of memory" where an allocation has failed."""
    signs = ("MemoryError", "allocate memory", "out of memory", "Unable to allocate")
    if record.status != "failed" or not any(sign in record.reason for sign in signs):
        return record
    budget = record.spec["budget"]["memory_gib"]
    within = f" within its budget of {budget:g} GiB" if budget is not None else ""
    return replace(record, reason=f"out of memory{within}: {record.reason}")


def _marked(record: CellRecord) -> CellRecord:
    """The record, with every time marked as taken beside other cells."""
    measured = [
        {**entry, "details": {**entry["details"], "load": SHARED_NOTE}} if entry["metric"] in _TIMES else entry
        for entry in record.measurements
    ]
    details = {**record.details, "notes": [*record.details.get("notes", []), SHARED_NOTE]}
    return replace(record, measurements=measured, details=details)


def _offer_to_the_oom_killer() -> None:
    """When the machine runs out of memory, Linux ends this process rather than the one that keeps the records."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")


if __name__ == "__main__":
    main()
