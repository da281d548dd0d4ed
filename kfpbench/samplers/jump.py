"""Jump: one sampler from the noise down to sigma*, another one from there to the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.processes.span import split
from kfpbench.protocols import FittedRefiner, FittedSampler, Problem, ProblemSize, SamplerPlugin
from kfpbench.registry import resolve

_DRAWS = 1 << 24  # of the stream that a sampler without a jump may use; a refiner's lie behind its start's


class Jump:
    """x* at sigma* / alpha* = ``sigma_star`` from ``start``, then x_0 from x* by ``refiner``'s own steps.

    Each is an ordinary sampler, fitted to its part of the process: the start (koopman, density, gaussian,
    gaussian_mixture, another jump, ...) ends at sigma*, the refiner (any whose fitted form has ``integrate``) begins
    there. With the start ``gaussian`` it is the teleportation of Wang and Vastola (2024). NFE: those of the two while
    they sample, counted by the score; what their fits evaluate is the setup's.

    The start uses the stream as it would alone, so that it is paired with the start by itself; the refiner's draws lie
    2^24 behind, or where the start holds jumps itself, behind the last of these.

    Raises ParameterError for a sigma_star outside the process, CapabilityError for a refiner that cannot start from
    given rows.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"sigma_star": 1.0},)

    def __init__(
        self,
        start: SamplerPlugin | str = "gaussian",
        refiner: SamplerPlugin | str = "dpmpp_2m",
        sigma_star: Annotated[float, Field(gt=0)] = 5.0,
    ) -> None:
        if not sigma_star > 0:
            raise ParameterError(
                "jump: sigma_star out of range", got=sigma_star, allowed="above 0", remedy="It is sigma / alpha."
            )
        self.start: SamplerPlugin = resolve("samplers", start)
        self.refiner: SamplerPlugin = resolve("samplers", refiner)
        self.sigma_star = sigma_star

    def fit(self, problem: Problem) -> FittedJump:
        """Fit both to their parts of the process, the refiner first: it may be refused."""
        before, behind = split(problem.process, self.sigma_star)
        refiner = self.refiner.fit(replace(problem, process=behind))
        if not isinstance(refiner, FittedRefiner):
            raise CapabilityError(
                "jump: this sampler cannot start from given rows",
                got=type(self.refiner).__name__,
                allowed="one whose fitted form has integrate(x, noise)",
                remedy="Take a solver of the baselines, such as dpmpp_2m.",
            )
        start = self.start.fit(replace(problem, process=before))
        return FittedJump(start, refiner, self.sigma_star, _DRAWS * (1 + _jumps(self.start)))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: those of both parts and a batch."""
        parts = self.start.working_memory(size) + self.refiner.working_memory(size)
        return parts + size.itemsize * size.batch * size.dimension


def _jumps(component: object) -> int:
    """How many jumps a sampler holds, itself among them: in its start, or as the sampler of its parts."""
    within = [part for part in vars(component).values() if isinstance(part, SamplerPlugin)]
    return isinstance(component, Jump) + sum(_jumps(part) for part in within)


@dataclass(frozen=True)
class FittedJump:
    """A fitted start at sigma*, a fitted refiner from there, and how many draws of the stream are the start's."""

    start: FittedSampler
    refiner: FittedRefiner
    sigma_star: float
    draws: int

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d): the start uses the stream's draws 0, 1, ..., the refiner those behind ``draws``."""
        return self.refiner.integrate(self.start.sample(noise), noise.after(self.draws))

    def describe(self) -> dict[str, Any]:
        """What both parts tell."""
        return {"sigma_star": self.sigma_star, "start": self.start.describe(), "refiner": self.refiner.describe()}
