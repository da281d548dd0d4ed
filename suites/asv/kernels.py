"""Every registered kernel: time and memory of Gram products on the tiled backend, and the error of an eigenvalue."""

import torch

from kfpbench.operators.diffusion import Diffusion
from kfpbench.operators.tiled import TiledGram

from .components import add_benchmarks, benchmark, build, capable, once, peak_increase
from .reference import leading_error, solve


def gram(kernel, x):
    """k(X, X)."""
    return TiledGram().gram(kernel, x, x)


def generator_gram(kernel, x):
    """(L k)(X, X) of the Ornstein-Uhlenbeck process."""
    return TiledGram().generator_gram(kernel, x, x, -x, Diffusion.constant(1.0))


class _Kernel:
    """k(X, X) V and (L k)(X, X) V for 8 columns, float32, on standard normal points."""

    params = ((1000, 4000), (2, 64))
    param_names = ("points", "dimension")
    timeout = 300

    @once
    def setup(self, points, dimension):
        generator = torch.Generator().manual_seed(0)
        self.points = torch.randn(points, dimension, generator=generator)
        self.right = torch.randn(points, 8, generator=generator)
        few = self.points[:50]  # a trial, which also imports what is imported late

        def trial(kernel):
            fitted = kernel.fit(few)
            gram(fitted, few).matmul(self.right[:50])
            generator_gram(fitted, few).matmul(self.right[:50])

        self.kernel = build("kernels", self.component, trial)
        self.fitted = self.kernel.fit(self.points)

    def time_gram(self, points, dimension):
        gram(self.fitted, self.points).matmul(self.right)

    def time_generator_gram(self, points, dimension):
        capable(lambda: generator_gram(self.fitted, self.points).matmul(self.right))

    @benchmark(unit="bytes", type="memory")
    def track_memory_generator_gram(self, points, dimension):
        return peak_increase(lambda: generator_gram(self.fitted, self.points).matmul(self.right))

    @benchmark(unit="eigenvalue", params=((500,), (2,)))
    def track_eigenvalue_error(self, points, dimension):
        """|lambda_1 + 1| of the eigensolver ``dense`` with this kernel."""
        return leading_error(capable(lambda: solve(points, dimension, kernel=self.kernel)))


add_benchmarks("kernels", _Kernel, globals())
