"""Every registered eigensolver on Ornstein-Uhlenbeck draws: time, peak memory, and the error of its leading value."""

import math

import numpy as np

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import OrnsteinUhlenbeck
from kfpbench.errors import CapabilityError
from kfpbench.registry import available

SOLVERS = sorted(available("eigensolvers"))
LARGEST = {"kooplearn_dirichlet": 500}  # O(N^3 d^3), in Python loops; others have no limit here
EXACT = -1.0  # the leading non-zero eigenvalue


class OrnsteinUhlenbeckDraws:
    """All defaults on N draws in d dimensions, 6 eigenvalues."""

    params = (SOLVERS, (500, 2000), (2, 8))
    param_names = ("eigensolver", "points", "dimension")
    timeout = 600

    def setup(self, eigensolver, points, dimension):
        if points > LARGEST.get(eigensolver, math.inf):
            raise NotImplementedError(f"{eigensolver}: more than {LARGEST[eigensolver]} points")
        self.problem = OrnsteinUhlenbeck(dimension=dimension)
        self.points = self.problem.sample(60, seed=1)
        try:  # imports, and compiles what is compiled, outside the timings
            self.solve(eigensolver)
        except CapabilityError as error:  # a peer that is not installed, or another kind of problem
            raise NotImplementedError(str(error)) from error
        self.points = self.problem.sample(points, seed=0)

    def solve(self, eigensolver):
        drift = self.problem.drift(self.points)
        return estimate_spectrum(self.points, drift, self.problem.diffusion, eigensolver=eigensolver)

    def time_solve(self, eigensolver, points, dimension):
        self.solve(eigensolver)

    def peakmem_solve(self, eigensolver, points, dimension):
        self.solve(eigensolver)

    def track_eigenvalue_error(self, eigensolver, points, dimension):
        """|lambda_1 + 1| of the slowest sound mode besides the constant function; NaN where there is none."""
        found = self.solve(eigensolver)
        sound = [value for value, flag in zip(found.values, found.flags, strict=True) if not flag]
        decaying = [value for value in sound if abs(value) > 1e-3]
        return float(np.abs(decaying[0] - EXACT)) if decaying else math.nan

    track_eigenvalue_error.unit = "eigenvalue"
