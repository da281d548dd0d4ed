"""The kinds of tables of a published page: cells, paired differences, and the claim card, as lines of Markdown."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kfpbench.errors import ParameterError, StoreError
from kfpbench.report.aggregate import Estimate, Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import COST_METRICS, COSTS, title_of
from kfpbench.report.naming import of_label, with_own_labels
from kfpbench.report.numbers import format_interval, format_value
from kfpbench.statistics.difference_table import CANNOT, verdict_of
from kfpbench.statistics.paired_difference import paired_difference
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder

_SCALES = {column.metric: column.scale for column in COSTS}


class Table(BaseModel, ABC):
    """One kind of table, with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def lines(self, folder: Path) -> list[str]:
        """Its lines of Markdown, paths of runs being relative to ``folder``."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_titles(value: Any) -> Any:
    """A list of names, or a mapping of names to what they are called."""
    return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


Runs = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
Titles = Annotated[dict[str, str | None], BeforeValidator(_as_titles)]


class _Options(Table):
    runs: Runs
    metrics: Titles
    duplicates: Literal["refused", "first"] = "refused"  # of a cell that several runs hold; first: in the order of runs


class CellTable(_Options):
    """A row for each cell: its name, and value (low to high) of each metric; repeats of a cell together.

    ``cells`` chooses rows and their order, and may rename them; all cells by default. ``sort_by`` a metric, ascending.
    """

    cells: Titles | None = None
    sort_by: str | None = None
    heading: str = "cell"

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each cell."""
        rows = _chosen(_groups(self, folder), self.cells)
        if self.sort_by is not None:
            rows.sort(key=lambda row: _sort_key(row[1].estimates.get(str(self.sort_by))))
        for metric in [*self.metrics, *([self.sort_by] if self.sort_by else [])]:
            if not any(metric in group.estimates for _, group in rows):
                known = sorted({name for _, group in rows for name in group.estimates})
                raise StoreError("no cell of the table has that metric", got=metric, allowed=", ".join(known))
        _require_alike([group for _, group in rows], list(self.metrics))
        body = [
            [name, *(_number(group.estimates.get(metric), metric) for metric in self.metrics)] for name, group in rows
        ]
        return markdown_table(
            [self.heading, *(title or title_of(metric) for metric, title in self.metrics.items())], body
        )


class DifferenceTable(_Options):
    """A row for each cell: its metrics less those of the cell ``against``, paired by seed, with 95 % intervals.

    ``against`` may map cells to the cell that each is read against: these are the rows then. The verdict is claimed
    only where the interval leaves out 0; cells that may not be compared say why.
    """

    against: str | dict[str, str]
    cells: Titles | None = None
    heading: str = "cell"

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each cell."""
        groups = _groups(self, folder)
        times = [name for name in self.metrics if name in COST_METRICS - {"nfe", "setup_nfe"}]
        if len(self.runs) > 1 and times:
            raise StoreError(
                "times and memory of several runs are not compared: machines and their load differ",
                got=", ".join(times),
                remedy="Take one run, or time the samplers in turns (kfpbench time).",
            )
        records = _records(self, folder)
        body = []
        for name, group, anchor in self._pairs(groups):
            own, base = ([records[cell.ident] for cell in one.cells if cell.status == "ok"] for one in (group, anchor))
            body.append([name, *(_difference(own, base, metric) for metric in self.metrics)])
        head = [self.heading, *(f"{title or title_of(metric)}, difference" for metric, title in self.metrics.items())]
        return markdown_table(head, body)

    def _pairs(self, groups: Sequence[Group]) -> list[tuple[str, Group, Group]]:
        """The rows with their names, and what each is read against."""
        if isinstance(self.against, str):
            anchor = of_label(groups, self.against)
            others = [group for group in groups if group is not anchor]
            return [(name, group, anchor) for name, group in _chosen(others, self.cells)]
        if self.cells is not None:
            raise StoreError(
                "`against` names the rows already", got=f"{len(self.cells)} cells", remedy="Leave out `cells`."
            )
        rows = _chosen(groups, dict.fromkeys(self.against))
        return [
            (f"{label} less {base}", group, of_label(groups, base))
            for (_, group), (label, base) in zip(rows, self.against.items(), strict=True)
        ]


class ClaimTable(Table):
    """The claim card of a run: a row for each part, its verdict, its number and the rule."""

    run: str

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each part of each spectral sampler."""
        from kfpbench.claim.card import card_of_run
        from kfpbench.claim.wording import number_text

        run = open_below(self.run, folder)
        card = card_of_run(run.read_manifest(), run.records(), run.path)
        if card is None:
            raise StoreError("the run's suite makes no claim", got=self.run, remedy="Give the suite a `claim:` block.")
        body = []
        for answer in card.answers:
            for part in answer.parts:
                number = number_text(part.number) if part.number is not None else part.reason
                body.append([answer.label, part.title, f"**{part.verdict}**", number, part.rule])
        return markdown_table(["sampler", "part", "verdict", "number", "rule"], body)


def open_below(name: str, folder: Path) -> RunFolder:
    """The run of that name below the page's folder. Raises StoreError for one that is not there or leads out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise StoreError("a page shows runs from below its own folder", got=name, remedy="Copy the run there.")
    return RunFolder.open(path)


def _groups(options: _Options, folder: Path) -> list[Group]:
    return with_own_labels(group_repeats(read_cells(_records(options, folder).values())))


def _records(options: _Options, folder: Path) -> dict[str, CellRecord]:
    """The records of all runs by cell, in order. Raises StoreError for a cell that two of them hold, unless the options
    take the first.
    """
    records: dict[str, CellRecord] = {}
    for name in options.runs:
        for one in open_below(name, folder).records():
            if one.cell in records:
                if options.duplicates == "first":
                    continue
                raise StoreError(
                    "two runs hold the same cell",
                    got=f"{one.label}, in {name} too",
                    remedy="Say `duplicates: first`, compare such runs by `kfpbench compare`, or join them by "
                    "`kfpbench collect`.",
                )
            records[one.cell] = replace(one, index=len(records))
    return records


def _require_alike(groups: Sequence[Group], metrics: Sequence[str]) -> None:
    """Raise StoreError where rows of one table have another reference split, or a metric with another n."""
    references = {group.first.reference for group in groups}
    if len(references) > 1:
        raise StoreError("rows of one table have different references", got=", ".join(sorted(references)))
    for metric in set(metrics) - COST_METRICS:
        sizes = {group.estimates[metric].n for group in groups if metric in group.estimates}
        if len(sizes) > 1:
            shown = ", ".join(str(one) for one in sorted(sizes, key=str))
            raise StoreError("rows of one table have different n", got=f"{metric}: {shown}", remedy="Make two tables.")


def _chosen(groups: Sequence[Group], cells: Mapping[str, str | None] | None) -> list[tuple[str, Group]]:
    """The rows of a table with their names. Raises StoreError for a label that no cell, or more than one, has."""
    if cells is None:
        return [(group.label, group) for group in groups]
    return [(name or label, of_label(groups, label)) for label, name in cells.items()]


def _sort_key(estimate: Estimate | None) -> float:
    return math.inf if estimate is None or math.isnan(estimate.value) else estimate.value


def _number(estimate: Estimate | None, metric: str) -> str:
    """Nothing where there is no value."""
    return "" if estimate is None else value_text(estimate.value, estimate.low, estimate.high, metric)


def value_text(value: float, low: float, high: float, metric: str) -> str:
    """'1.23 (1.20 to 1.26)' in the metric's unit of tables; the value alone where the interval has no length."""
    scale = _SCALES.get(metric, 1.0)
    text = format_value(value * scale, (high - low) / 2 * scale)
    interval = format_interval(low * scale, high * scale)
    return f"{text} ({interval})" if interval else text


def _difference(own: Sequence[Any], base: Sequence[Any], metric: str) -> str:
    """'+1.9 (1.1 to 2.6), worse', or why there is none."""
    try:
        made = paired_difference(own, base, metric)
    except ParameterError as error:
        return f"not compared: {error.what}"
    if not math.isfinite(made.value):
        return f"not compared: {made.how}"
    scale = _SCALES.get(metric, 1.0)
    low, high = made.low * scale, made.high * scale
    value = format_value(made.value * scale, (high - low) / 2)
    signed = value if value.startswith("\N{MINUS SIGN}") else f"+{value}"
    better = next(entry["better"] for entry in own[0].measurements if entry["metric"] == metric)
    interval, verdict = format_interval(low, high), verdict_of(made, better)
    text = f"{signed} ({interval})" if interval else signed
    return text if verdict in ("", CANNOT) else f"{text}, {verdict}"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table. Names are any text: what would end a cell, a line or a comment is escaped."""
    rows = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(_escaped(text) for text in row) + " |" for row in rows]


def _escaped(text: str) -> str:
    plain = "".join(one if one.isprintable() else "?" for one in text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
