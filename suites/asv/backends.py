"""Every registered backend: time and memory of Gram products against the number of points and the dimension."""

import torch

from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion

from .components import add_benchmarks, benchmark, build, capable, once, peak_increase


class _Backend:
    """k(X, X) V and (L k)(X, X) V of the Gaussian kernel for 8 columns, float32."""

    params = ((1000, 4000), (2, 64, 512))
    param_names = ("points", "dimension")
    timeout = 300

    @once
    def setup(self, points, dimension):
        self.backend = build("backends", self.component)
        generator = torch.Generator().manual_seed(0)
        self.points = torch.randn(points, dimension, generator=generator)
        self.right = torch.randn(points, 8, generator=generator)
        self.kernel = RBF().fit(self.points)
        self.diffusion = Diffusion.constant(1.0)
        for operator in (self.gram, self.generator_gram):  # KeOps compiles one formula for each dimension
            capable(lambda operator=operator: operator(self.points[:50]).matmul(self.right[:50]))

    def gram(self, x):
        return self.backend.gram(self.kernel, x, x)

    def generator_gram(self, x):
        return self.backend.generator_gram(self.kernel, x, x, -x, self.diffusion)

    def time_gram(self, points, dimension):
        capable(lambda: self.gram(self.points).matmul(self.right))

    def time_generator_gram(self, points, dimension):
        capable(lambda: self.generator_gram(self.points).matmul(self.right))

    @benchmark(unit="bytes", type="memory")
    def track_memory_gram(self, points, dimension):
        return peak_increase(lambda: self.gram(self.points).matmul(self.right))


add_benchmarks("backends", _Backend, globals())
