"""Gram products of every registered backend: time and peak memory against the number of points and the dimension."""

import torch

from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion
from kfpbench.registry import available, find

BACKENDS = sorted(available("backends"))


class GramMatmul:
    """k(X, X) V and (L k)(X, X) V for 8 columns, float32."""

    params = (BACKENDS, (1000, 4000), (2, 64, 512))
    param_names = ("backend", "points", "dimension")
    timeout = 120

    def setup(self, backend, points, dimension):
        generator = torch.Generator().manual_seed(0)
        self.points = torch.randn(points, dimension, generator=generator)
        self.right = torch.randn(points, 8, generator=generator)
        self.kernel = RBF().fit(self.points)
        self.backend = find("backends", backend).load()()
        self.diffusion = Diffusion.constant(1.0)
        for operator in (self.gram(), self.generator_gram()):  # KeOps compiles here, outside the timings
            if hasattr(operator, "warm_up"):
                operator.warm_up(8)

    def gram(self):
        return self.backend.gram(self.kernel, self.points, self.points)

    def generator_gram(self):
        return self.backend.generator_gram(self.kernel, self.points, self.points, -self.points, self.diffusion)

    def time_gram(self, backend, points, dimension):
        self.gram().matmul(self.right)

    def time_generator_gram(self, backend, points, dimension):
        self.generator_gram().matmul(self.right)

    def peakmem_gram(self, backend, points, dimension):
        self.gram().matmul(self.right)
