"""Both kinds of storage open in optuna-dashboard, where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from kfpbench.study.command import work_on
from kfpbench.study.opened import Opened, existing
from kfpbench.study.options import StudyOptions
from kfpbench.study.results import front_of, rows_of

dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")


def studied(suite: Path, storage: str | None) -> Opened:
    space = "study.space.samplers.x.kind=[plain, broken]"
    options = StudyOptions(suite.parent / "out", storage, None, (space, "study.budget.trials=6"), True)
    assert work_on(suite, options) == 0
    return existing(suite, options)


def get(app: Any, path: str) -> Any:
    """The JSON that the dashboard answers a request of its page with."""
    environment: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environment)
    statuses: list[str] = []
    body = b"".join(app(environment, lambda status, headers, exception=None: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return json.loads(body)


def check_shown(storage: BaseStorage, opened: Opened) -> None:
    app = dashboard.wsgi(storage)
    (summary,) = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "planted"
    shown = get(app, f"/api/studies/{summary['study_id']}")
    assert shown["objective_names"] == ["f1", "f2"]
    states = {"ok": "Complete", "failed": "Fail"}
    rows = rows_of(opened.study, opened.definition)
    assert {row.what for row in rows} == set(states)
    assert [(trial["number"], trial["state"]) for trial in shown["trials"]] == [
        (row.number, states[row.what]) for row in rows
    ]
    front = {row.number: row.values for row in front_of(opened.study, opened.definition)}
    assert {trial["number"]: trial["values"] for trial in shown["best_trials"]} == front


def test_a_journal_opens(planted: Path) -> None:
    opened = studied(planted, None)
    check_shown(JournalStorage(JournalFileBackend(str(opened.folder / "study.journal"))), opened)


def test_a_database_opens(planted: Path, postgres: str) -> None:
    opened = studied(planted, postgres)
    assert opened.place.url is not None
    check_shown(RDBStorage(opened.place.url), opened)
