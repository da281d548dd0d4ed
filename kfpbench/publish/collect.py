"""Several run folders as one, or as one table."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kfpbench.claim.card import write_claim
from kfpbench.errors import StoreError
from kfpbench.publish.gather import Gathered, copy_files, gather, gathered_manifest
from kfpbench.report.html import FILE_NAME, STATISTICS, write_report
from kfpbench.store.atomic import write_bytes
from kfpbench.store.output_folder import make_output_folder
from kfpbench.store.results import results_frame, write_parquet
from kfpbench.store.run_folder import RunFolder

PICTURES = ("grid", "nearest", "eigenfunctions")


@dataclass(frozen=True)
class Collected:
    """What was written: ``path`` is the folder, the table or the report; ``files_left_out`` could not be copied."""

    path: Path
    gathered: Gathered
    files_left_out: int = 0


def collect(paths: Sequence[str | os.PathLike[str]], out: Path, *, command: Sequence[str] = ()) -> Collected:
    """Put several runs, of one suite or of several, into the run folder ``out``, or the table ``out`` (.parquet).

    A folder gets manifest, cells.jsonl, results.parquet, the files of the cells and a report; each record says in
    ``details.origin`` where it came from, the table in its column ``origin``. Of duplicates see ``gather.RULE``. The
    folder appears when it is complete, or not at all. Raises StoreError for an ``out`` that is not free, and as
    ``gather`` does.
    """
    gathered = gather(paths)
    if out.suffix == ".parquet":
        _check_table(out)
        text = "\n".join(record.to_json() for record in gathered.records)
        write_parquet(results_frame(gathered.records), out, hashlib.sha256(text.encode()).hexdigest())
        return Collected(out, gathered)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError("the path is not free", got=str(out), allowed="a folder that is new or empty")
    make_output_folder(out.parent)
    with _beside(out) as place:
        left_out = _write_run(gathered, place, command, None)
        folder = RunFolder.open(place)
        folder.write_results()
        write_claim(folder.read_manifest(), folder.records(), place)
        write_report(folder.read_manifest(), folder.records(), place)
        os.replace(place, out)
    return Collected(out, gathered, left_out)


def merge_reports(paths: Sequence[str | os.PathLike[str]], out: Path, *, command: Sequence[str] = ()) -> Collected:
    """Write report.html and statistics.json of several runs together into the folder ``out``.

    Cells that cannot be compared (other data, reference, n, features, seeds) get sections of their own, which say why.
    Raises StoreError where ``out`` holds a run, whose own report that would replace, and as ``gather`` does.
    """
    if RunFolder.is_run(out):
        raise StoreError(
            "the folder holds a run with a report of its own", got=str(out), remedy="Name another with --out."
        )
    gathered = gather(paths)
    make_output_folder(out)
    with _beside(out) as place:
        left_out = _write_run(gathered, place, command, PICTURES)
        folder = RunFolder.open(place)
        write_report(folder.read_manifest(), folder.records(), place)
        for name in (STATISTICS, FILE_NAME):
            write_bytes(out / name, (place / name).read_bytes())
    return Collected(out / FILE_NAME, gathered, left_out)


def _write_run(gathered: Gathered, place: Path, command: Sequence[str], kinds: Sequence[str] | None) -> int:
    folder = RunFolder.create(place, gathered_manifest(gathered, command))
    records, left_out = copy_files(gathered, place, kinds)
    write_bytes(folder.log.path, b"".join(record.to_json().encode("ascii") + b"\n" for record in records))
    return left_out


def _check_table(out: Path) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise StoreError("the file cannot be written there", got=str(out), allowed="a file in a folder that exists")


class _beside:
    """A folder beside ``out``, on the same disk; removed at the end unless it has taken the place of ``out``."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> Path:
        self.place = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", dir=self.out.resolve().parent))
        self.place.chmod(0o755)
        return self.place

    def __exit__(self, *_: object) -> None:
        if self.place.exists():
            shutil.rmtree(self.place)
