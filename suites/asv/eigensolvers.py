"""Every registered eigensolver on Ornstein-Uhlenbeck draws: time, memory, and the error of its leading value."""

import math

from .components import add_benchmarks, benchmark, build, capable, once, peak_increase
from .reference import leading_error, solve

LARGEST = {"kooplearn_dirichlet": 500}  # O(N^3 d^3), in Python loops; others have no limit here


class _Eigensolver:
    """All defaults on N draws in d dimensions, 6 eigenvalues."""

    params = ((500, 2000), (2, 8))
    param_names = ("points", "dimension")
    timeout = 600

    @once
    def setup(self, points, dimension):
        if points > LARGEST.get(self.component, math.inf):
            raise NotImplementedError(f"{self.component}: more than {LARGEST[self.component]} points")
        self.solver = build("eigensolvers", self.component)
        capable(lambda: self.solve(60, dimension, seed=1))  # imports, and compiles what is compiled

    def solve(self, points, dimension, seed=0):
        return solve(points, dimension, seed, eigensolver=self.solver)

    def time_solve(self, points, dimension):
        self.solve(points, dimension)

    @benchmark(unit="bytes", type="memory")
    def track_memory_solve(self, points, dimension):
        return peak_increase(lambda: self.solve(points, dimension))

    @benchmark(unit="eigenvalue")
    def track_eigenvalue_error(self, points, dimension):
        """|lambda_1 + 1| of the slowest sound mode besides the constant function."""
        return leading_error(self.solve(points, dimension))


add_benchmarks("eigensolvers", _Eigensolver, globals())
