"""Every registered sampler, baselines among them: time of the fit and of the draws, memory, and Frechet distance.

In 2 dimensions a ring of eight Gaussians with its exact score, in 64 the handwritten digits with the score of their
training images: both from the noise of scale 20. Samplers that take ``steps`` take 18, all else is their default.
"""

import torch

from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import RingMixture
from kfpbench.metrics.frechet import frechet_distance
from kfpbench.noise import NoiseStream
from kfpbench.processes import ve  # the class by name would be taken for a benchmark: it has `time_of`
from kfpbench.protocols import Problem
from kfpbench.scores.empirical import EmpiricalScore
from kfpbench.scores.mixture import MixtureScore

from .components import add_benchmarks, benchmark, build, capable, once, peak_increase

DATA = {2: (RingMixture, MixtureScore), 64: (Digits, EmpiricalScore)}
SEED, STEPS = 0, 18


class _Sampler:
    """float32 on the CPU; ``images`` rows are drawn in one batch."""

    params = ((50, 500), (2, 64))
    param_names = ("images", "dimension")
    timeout = 600

    @once
    def setup(self, *sizes):
        self.sampler = build("samplers", self.component, steps=STEPS)
        data, score = DATA[sizes[-1]]
        dataset = data().load().for_reference("test")
        cpu = torch.device("cpu")
        bound = score().bind(dataset, cpu, torch.float32)
        self.problem = Problem(dataset, ve.VarianceExploding(0.05, 20.0), bound, cpu, torch.float32, SEED)
        self.fitted = capable(self.fit)
        capable(lambda: self.draw(4))  # imports, and compiles what is compiled, outside the timings

    def fit(self):
        return self.sampler.fit(self.problem)

    def draw(self, images):
        given = self.problem
        noise = NoiseStream.of_range(SEED, 0, images, given.dataset.dimension, given.device, given.dtype)
        return self.fitted.sample(noise)

    @benchmark(params=((2, 64),), param_names=("dimension",))
    def time_fit(self, dimension):
        self.fit()

    def time_draw(self, images, dimension):
        self.draw(images)

    @benchmark(unit="bytes", type="memory", params=((500,), (2, 64)))
    def track_memory(self, images, dimension):
        """Of a fit and of the draws."""
        return peak_increase(lambda: (self.fit(), self.draw(images)))

    @benchmark(unit="squared data units", params=((500,), (2, 64)))
    def track_frechet(self, images, dimension):
        """Of the draws to as many test rows, in the data's own coordinates."""
        return frechet_distance(self.draw(images).numpy(), self.problem.dataset.test[:images])


add_benchmarks("samplers", _Sampler, globals())
