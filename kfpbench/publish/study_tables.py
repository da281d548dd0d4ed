"""The kinds of tables of a published page that show a study: its front, its progress, what mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kfpbench.errors import StoreError
from kfpbench.publish.page_tables import Table, markdown_table, open_below, value_text
from kfpbench.report.columns import title_of
from kfpbench.report.load_notes import MARK
from kfpbench.study.definition import Definition
from kfpbench.study.rebuild import rebuilt
from kfpbench.study.results import LEAST_RESULTS, Row, frame_of_rows, front_of, importances, rows_of, volume_history
from kfpbench.study.views import short_names
from kfpbench.suite.cell_name import compact


class _Options(Table):
    run: str


class StudyFront(_Options):
    """A row for each trial that no other one beats in every objective: objectives with intervals, and parameters.

    A time that was taken while other programs had much of the machine is marked.
    """

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each trial, the best in the first objective first. Raises StoreError without any."""
        definition, study = rebuilt(open_below(self.run, folder))
        front = front_of(study, definition)
        if not front:
            remedy = "`kfpbench study report` lists the trials with their reasons."
            raise StoreError("no trial has a result that keeps the constraints", got=self.run, remedy=remedy)
        names = short_names(list(definition.space.parameters))
        body = [
            [
                f"trial {row.number}",
                *(_value(row, k, one.metric) for k, one in enumerate(definition.objectives)),
                *(compact(row.settings[path]) if path in row.settings else "" for path in names),
            ]
            for row in front
        ]
        return markdown_table(["trial", *_titles(definition), *names.values()], body)


class StudyProgress(_Options):
    """The share of the box between the best values and the reference point that trials dominate, after so many."""

    after: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each number of trials. Raises StoreError where fewer than two have a result, and for
        more trials than the study has.
        """
        definition, study = rebuilt(open_below(self.run, folder))
        rows = rows_of(study, definition)
        good = [row for row in rows if row.what == "ok"]
        if len(good) < 2:
            raise StoreError("fewer than two trials have a result, from which no volume can be told", got=self.run)
        asked = max(self.after)
        if asked > (known := definition.trials or len(rows)):
            raise StoreError("the study has not so many trials", got=asked, allowed=f"up to {known}")
        history = volume_history(rows, frame_of_rows(good, definition.objectives))
        what = "hypervolume" if len(definition.objectives) > 1 else "gained of the range"
        body = [[str(count), f"{100 * history[min(count, len(history)) - 1]:.1f} %"] for count in self.after]
        return markdown_table(["trials", what], body)


class StudyImportances(_Options):
    """A row for each parameter, the one that matters most first: its share in each objective (PED-ANOVA)."""

    def lines(self, folder: Path) -> list[str]:
        """A head, and a line for each parameter. Raises StoreError for too few results."""
        definition, study = rebuilt(open_below(self.run, folder))
        found = importances(study, definition)
        if not found:
            what = f"fewer than {LEAST_RESULTS} trials have a result: no importance can be told"
            raise StoreError(what, got=self.run, remedy="Leave the table out, or go on with the study.")
        paths = sorted(definition.space.parameters, key=lambda path: -max(one[path] for one in found.values()))
        names = short_names(paths)
        body = [[names[path], *(f"{100 * one[path]:.0f} %" for one in found.values())] for path in paths]
        return markdown_table(["parameter", *_titles(definition)], body)


def _titles(definition: Definition) -> list[str]:
    return [title_of(one.metric) for one in definition.objectives]


def _value(row: Row, k: int, metric: str) -> str:
    assert row.values is not None  # of a trial on the front
    assert row.low is not None
    assert row.high is not None
    text = value_text(row.values[k], row.low[k], row.high[k], metric)
    return f"{text}, {MARK}" if metric in row.under_load else text
