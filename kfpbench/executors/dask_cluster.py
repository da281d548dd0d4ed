"""Cells on a Dask cluster: one that is given by its scheduler's address, or one on this machine.

Each Dask worker computes its cells in a process beside it (`isolated_cell`), so that budgets are enforced and a cell
that crashes takes no worker down. A Dask worker that is lost gives its cell back to the scheduler, which runs it on
another one; how often is the scheduler's setting ``distributed.scheduler.allowed-failures``, 1 on a cluster of ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kfpbench.errors import CapabilityError, KfpbenchError
from kfpbench.executors.setting import Setting
from kfpbench.runner.cell_result import CellResult
from kfpbench.runner.run_cell import lost_record
from kfpbench.store.json_values import dumps, loads
from kfpbench.store.records import CellRecord, utc_now
from kfpbench.suite.cell import Cell

if TYPE_CHECKING:
    from distributed import Client

_WAIT = "60s"  # for the scheduler, and for its first worker
_log = logging.getLogger(__name__)
_processes = threading.local()  # of this Dask worker: the process of each of its threads, and what it was set up with


class DaskExecutor:
    """Runs cells on the cluster of ``scheduler``, or, where that is None, on a local one of ``workers`` processes.

    Raises CapabilityError where Dask is not installed.
    """

    def __init__(self, setting: Setting, scheduler: str | None, workers: int) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise CapabilityError(
                "the executor dask needs the package distributed",
                got=str(error),
                remedy="Install it: pip install 'kfpbench[dask]'.",
            ) from error
        self._setting = setting
        self._scheduler = scheduler
        self._workers = workers

    def results(
        self, cells: Sequence[Cell], started: Callable[[Cell], None]
    ) -> Generator[tuple[Cell, CellResult], None, None]:
        """See `Executor`. A cell counts as started when it is handed to the cluster."""
        from distributed import as_completed

        with ExitStack() as stack:
            client = self._connect(stack)
            setting = dumps(self._setting.with_cache().as_plain())
            begun = utc_now()
            futures = {}
            for place, cell in enumerate(cells):
                future = client.submit(
                    run_on_worker, setting, dumps(asdict(cell)), key=f"cell-{cell.id}", pure=False, priority=-place
                )
                futures[future.key] = cell, future
                started(cell)
            stack.callback(_cancel, client, [future for _, future in futures.values()])
            for future in as_completed([future for _, future in futures.values()], loop=client.loop):
                cell, _ = futures.pop(future.key)
                yield cell, _result_of(future, cell, begun)
                future.release()

    def _connect(self, stack: ExitStack) -> Client:
        """The cluster's client, which ends with the stack; so does a cluster of ours."""
        import dask
        from distributed import Client, LocalCluster

        if self._scheduler is not None:
            try:
                client = stack.enter_context(Client(self._scheduler, timeout=_WAIT, set_as_default=False))
            except (OSError, ValueError) as error:
                raise CapabilityError(
                    f"no Dask scheduler answers there: {error}",
                    got=self._scheduler,
                    allowed="an address such as tcp://head:8786",
                    remedy="Start one with `dask scheduler`, or leave --scheduler out for a cluster on this machine.",
                ) from error
        else:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1}))
            cluster = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,  # the cells' own budgets count; their memory is not the Dask worker's
            )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        _log.info("Dask cluster at %s", client.scheduler.address)
        return client


def run_on_worker(setting: str, cell: str) -> tuple[str, dict[str, bytes]]:
    """Compute a cell on a Dask worker; JSON in, the record's JSON and the files out."""
    from kfpbench.executors.isolated_cell import CellProcess

    held = getattr(_processes, "held", None)
    if held is None or held[0] != setting:
        if held is not None:
            held[1].close()
        _processes.held = held = (setting, CellProcess(Setting(**loads(setting))))
    result = held[1].run(Cell(**loads(cell)), lambda: None)
    return result.record.to_json(), result.files


def _result_of(future: Any, cell: Cell, begun: str) -> CellResult:
    """What a finished task has given. A task that was lost with its workers is a failed cell."""
    try:
        text, files = future.result()
    except KfpbenchError:
        raise  # a full disk, a worker that cannot be set up: no other cell would do better
    except Exception as error:  # KilledWorker, a task that cannot be sent: what Dask raises has no common class
        reason = f"lost on the cluster: {type(error).__name__}: {error}"
        return CellResult(lost_record(cell, "failed", reason, begun, 0.0))
    return CellResult(CellRecord.from_json(text), files)


def _cancel(client: Client, futures: list[Any]) -> None:
    client.cancel([future for future in futures if not future.done()])
