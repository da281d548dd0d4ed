"""A study with everything that belongs to it: its suite, where it is stored, its folder, its trials."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfpbench.errors import StoreError
from kfpbench.study.claims import Claims, claims_of
from kfpbench.study.definition import Definition
from kfpbench.study.folder import STUDIES, open_folder
from kfpbench.study.options import StudyOptions
from kfpbench.study.storage import Place, open_storage, redacted
from kfpbench.study.trials import tally
from kfpbench.study.worker import open_study
from kfpbench.suite.load import load_suite
from kfpbench.suite.loaded import Suite

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class Opened:
    """A study with everything that belongs to it."""

    suite: Suite
    definition: Definition
    place: Place
    folder: Path
    study: Study
    claims: Claims


def open_all(file: Path, options: StudyOptions, *, create: bool) -> Opened:
    """Load the suite, and open its study; with ``create`` make both the study and its folder.

    Raises SuiteError for a bad suite or one without a study, StoreError as `open_storage` and `open_study` do.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the worker says what becomes of each trial
    suite = load_suite(file, overrides=options.overrides, allow_plugins=options.allow_plugins)
    definition = Definition.of(suite, options.name)
    folder = options.out if options.out is not None else STUDIES / definition.name
    place = Place.of(options.storage, folder)
    if create:
        open_folder(folder, suite, definition, _shown_command())
    storage = open_storage(place, definition.block.heartbeat, create=create)
    claims = claims_of(place, definition.name)
    study = open_study(definition, storage, claims, create=create)
    return Opened(suite, definition, place, folder, study, claims)


def existing(file: Path, options: StudyOptions) -> Opened:
    """A study that is there already, to be looked at. Raises StoreError where none of its trials has finished."""
    opened = open_all(file, options, create=False)
    if not tally(opened.study.get_trials(deepcopy=False)).finished:
        raise StoreError("no trial of the study has finished yet", got=opened.definition.name)
    return opened


def _shown_command() -> list[str]:
    """The command as a record may show it: without the password of a storage."""
    return ["kfpbench", *(redacted(one) if "://" in one else one for one in sys.argv[1:])]
