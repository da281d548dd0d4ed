"""The Optuna sampler of a trial."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.suite.study_schema import SamplerBlock

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def sampler_of(block: SamplerBlock, seed: int, number: int) -> BaseSampler:
    """A sampler for trial ``number``, the same on every worker.

    Its random numbers depend on the study's seed and on the trial's number alone: two workers never draw the same
    point, and a random search does not depend on how many work on it. The sequence of ``qmc`` is that of the study. A
    ``grid`` is enqueued whole, so that here only what a lost trial had not drawn yet is left to draw.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if block.name == "tpe":
        return samplers.TPESampler(n_startup_trials=block.startup, seed=own)
    if block.name == "nsga2":
        return samplers.NSGAIISampler(population_size=block.population, seed=own)
    if block.name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return samplers.QMCSampler(
                qmc_type=block.sequence,
                scramble=True,
                seed=seed,
                independent_sampler=samplers.RandomSampler(seed=own),
                warn_independent_sampling=False,
            )
    return samplers.RandomSampler(seed=own)
