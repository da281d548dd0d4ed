"""Gaussian mixtures in the plane: data whose law, and so the score at every noise level, is known."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from kfpbench.data.dataset import Dataset, Mixture, Reference
from kfpbench.data.fingerprint import fingerprint
from kfpbench.errors import ParameterError

Rows = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0)]


class RingMixture:
    """Equally weighted isotropic Gaussians, evenly spaced on a circle: mode k at angle 2 pi k / modes.

    The usual test of mode coverage. With the defaults the circle has radius 4, as in the "8 Gaussians" of
    the normalizing-flow literature, and a standard deviation of 0.3: neighbouring modes are 10 standard
    deviations apart, so a point belongs to its nearest mode without doubt, and a missing mode is missing.
    """

    def __init__(
        self,
        modes: Annotated[int, Field(ge=1, le=1000)] = 8,
        radius: Annotated[float, Field(gt=0)] = 4.0,
        std: Annotated[float, Field(gt=0)] = 0.3,
        train: Rows = 20_000,
        validation: Rows = 2_000,
        test: Rows = 50_000,
        seed: Seed = 0,
    ) -> None:
        """Raises ParameterError when a parameter is not positive (the seed: negative)."""
        require_positive(
            "gmm_ring",
            seed,
            modes=modes,
            radius=radius,
            std=std,
            train=train,
            validation=validation,
            test=test,
        )
        self.modes, self.radius, self.std = modes, radius, std
        self.train, self.validation, self.test, self.seed = train, validation, test, seed

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of
        ``for_reference("test")``."""
        return self.train + (self.validation if reference == "test" else 0), 2

    def load(self) -> Dataset:
        """Draw the three splits from the law, each from a random stream of its own."""
        angles = 2 * np.pi * np.arange(self.modes) / self.modes
        law = Mixture(
            weights=np.full(self.modes, 1 / self.modes),
            means=self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1),
            covariances=np.tile(self.std**2 * np.eye(2), (self.modes, 1, 1)),
        )
        source = f"ring of {self.modes} Gaussians, radius {self.radius:g}, standard deviation {self.std:g}"
        return draw_splits("gmm_ring", source, law, (self.train, self.validation, self.test), self.seed)


class PlanarMixture:
    """Anisotropic Gaussians with unequal weights at irregular places: no symmetry that a method could
    exploit.

    Component k: weight proportional to U(1, 4); mean uniform on the square [-4, 4]^2; covariance R
    diag(s1^2, s2^2) R^T with s1 in U(0.5, 1), s2 in U(0.15, 0.4) and a random rotation R. Components may
    overlap. ``law_seed`` chooses the law and ``seed`` the rows drawn from it, so that runs with other rows
    can share one law.
    """

    def __init__(
        self,
        components: Annotated[int, Field(ge=1, le=1000)] = 6,
        train: Rows = 20_000,
        validation: Rows = 2_000,
        test: Rows = 50_000,
        law_seed: Seed = 0,
        seed: Seed = 0,
    ) -> None:
        """Raises ParameterError when a parameter is not positive (the seeds: negative)."""
        require_positive(
            "gmm2d", min(seed, law_seed), components=components, train=train, validation=validation, test=test
        )
        self.components, self.law_seed = components, law_seed
        self.train, self.validation, self.test, self.seed = train, validation, test, seed

    def size(self, reference: Reference = "validation") -> tuple[int, int]:
        """(training rows, d) of the data set as loaded, or with ``reference`` "test" of
        ``for_reference("test")``."""
        return self.train + (self.validation if reference == "test" else 0), 2

    def load(self) -> Dataset:
        """Draw the law, then the three splits from it, each from a random stream of its own."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.law_seed)))
        k = self.components
        weights = rng.uniform(1, 4, k)
        means = rng.uniform(-4, 4, (k, 2))
        angles = rng.uniform(0, np.pi, k)
        variances = np.stack([rng.uniform(0.5, 1, k), rng.uniform(0.15, 0.4, k)], axis=1) ** 2
        cos, sin = np.cos(angles), np.sin(angles)
        rotations = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)  # (K, 2, 2)
        covariances = np.einsum("kij,kj,klj->kil", rotations, variances, rotations)
        covariances = (covariances + covariances.swapaxes(1, 2)) / 2  # symmetric to the last bit
        law = Mixture(weights=weights / weights.sum(), means=means, covariances=covariances)
        source = f"mixture of {k} anisotropic Gaussians in the plane, law seed {self.law_seed}"
        return draw_splits("gmm2d", source, law, (self.train, self.validation, self.test), self.seed)


def draw_splits(name: str, source: str, law: Mixture, sizes: tuple[int, int, int], seed: int) -> Dataset:
    """A data set of ``sizes`` rows (training, validation, test) drawn from a law; ``source`` says in words which.

    Each split has its own stream: more rows in one leave the others as they were. Cost O(n d^2).
    """
    streams = [np.random.Generator(np.random.Philox(child)) for child in np.random.SeedSequence(seed).spawn(3)]
    train, validation, test = (law.sample(n, rng) for n, rng in zip(sizes, streams, strict=True))
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        law=law,
        source=f"{source}; rows drawn with seed {seed}",
        fingerprint=fingerprint(train, validation, test),
    )


def require_positive(name: str, seed: int, **positive: float) -> None:
    """Raise ParameterError unless the numbers are positive and finite and the seed is not negative.

    The annotations are checked for suites; a call from Python gets the same answer here.
    """
    for parameter, value in positive.items():
        if not 0 < value < float("inf"):
            raise ParameterError(f"{parameter} must be positive and finite", got=value, where=f"data set {name!r}")
    if seed < 0:
        raise ParameterError("a seed must not be negative", got=seed, where=f"data set {name!r}")
