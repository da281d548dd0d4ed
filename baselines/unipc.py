"""UniPC: a unified predictor-corrector for the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field
from torch import Tensor

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem
from kfpbench_baselines.data_prediction import (
    COINCIDENT,
    check_order,
    distinct,
    euler_weight,
    half_log_snr,
    interpolation_weights,
    step_orders,
)
from kfpbench_baselines.integrator import FittedIntegrator, Integrator, Rho, Steps
from kfpbench_baselines.schedules import Schedule

Variant = Literal["bh1", "bh2"]


class UniPC(Integrator):
    """UniP-p predicts x' from the last p denoised states, D' is taken there, UniC-p corrects x' with D' as one more.

    Both are x' = (sigma' / sigma) x + alpha' sum_j w_j D_j in lambda = log(alpha / sigma); w integrates the
    interpolating polynomial exactly. D' is not taken again at the corrected x': it serves the next predictor, so
    NFE = steps, and the last step has no corrector. B(h) = h (``bh1``) or 1 - e^(-h) (``bh2``) enters only where the
    paper fixes the coefficient at 1/2, in UniP-2 and UniC-1; otherwise it cancels. diffusers
    advises ``bh1`` below 10 steps without guidance; the defaults here are its defaults.

    Order: p + 1 behind its first steps. These have order 1, 2, ...: the first step, corrected by UniC-1, leaves O(h^3),
    so the whole has order 2, 3, 3 for p = 1, 2, 3. ``lower_order_final`` lowers the order of the last steps to
    ..., 2, 1, for any number of steps, and with it the whole to order 2. Source: Zhao, Bai, Rao, Zhou, Lu, "UniPC: A
    Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models" (2023), for data prediction.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"steps": 4}, {"steps": 6, "order": 3, "variant": "bh1"})
    batches: ClassVar[int] = 8

    def __init__(
        self,
        steps: Steps = 18,
        schedule: Schedule = "edm",
        rho: Rho = 7.0,
        order: Annotated[int, Field(ge=1, le=3)] = 2,
        variant: Variant = "bh2",
        lower_order_final: bool = True,
    ) -> None:
        super().__init__(steps, schedule, rho)
        check_order("unipc", order, 3)
        if variant not in get_args(Variant):
            raise ParameterError("unknown variant", got=variant, allowed=", ".join(get_args(Variant)), where="unipc")
        self.order, self.variant, self.lower_order_final = order, variant, lower_order_final

    def fit(self, problem: Problem) -> FittedUniPC:
        """Nothing to learn: lay the time grid."""
        return FittedUniPC(problem, self.grid(problem), self.order, self.variant, self.lower_order_final)


@dataclass(frozen=True)
class FittedUniPC(FittedIntegrator):
    """The method on its time grid."""

    order: int
    variant: Variant
    lower_order_final: bool

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at t_min from x (n, d) at t_max."""
        process, steps = self.problem.process, len(self.times) - 1
        history = [self._denoised(x, self.times[0])]  # newest first
        levels = [half_log_snr(process, self.times[0])]
        for index, order in enumerate(step_orders(self.order, steps, self.lower_order_final)):
            t, following = self.times[index : index + 2]
            target = half_log_snr(process, following)
            nodes, step = [level - levels[0] for level in levels[:order]], target - levels[0]
            nodes = nodes[: distinct(nodes)]
            linear, scale = process.sigma(following) / process.sigma(t) * x, process.alpha(following)
            predicted = linear + scale * weighted(predictor_weights(nodes, step, self.variant), history)
            if index == steps - 1:
                return predicted
            denoised = self._denoised(predicted, following)
            weights = corrector_weights(nodes, step, self.variant)
            x = linear + scale * weighted(weights, [*history[: len(nodes)], denoised])
            history, levels = [denoised, *history][: self.order], [target, *levels][: self.order]
        return x

    def _denoised(self, x: Tensor, t: float) -> Tensor:
        process = self.problem.process
        return self.problem.score.denoise(x, process.alpha(t), process.sigma(t))


def predictor_weights(nodes: Sequence[float], step: float, variant: Variant) -> list[float]:
    """UniP-p: the weights of D_0, ..., D_(p-1) at the nodes u_0 = 0 > u_1 > ...; order p."""
    if len(nodes) != 2:
        return interpolation_weights(nodes, step)
    slope = -0.5 * _b(step, variant) * step / nodes[1]
    return [euler_weight(step) + slope, -slope]


def corrector_weights(nodes: Sequence[float], step: float, variant: Variant) -> list[float]:
    """UniC-p: the weights of D_0, ..., D_(p-1) and of D' at u = h; order p + 1."""
    if len(nodes) > 1 and step > COINCIDENT:
        return interpolation_weights([*nodes, step], step)
    half = 0.5 * _b(step, variant)
    return [euler_weight(step) - half, *[0.0] * (len(nodes) - 1), half]


def weighted(weights: Sequence[float], denoised: Sequence[Tensor]) -> Tensor:
    """sum_j w_j D_j over as many as there are weights, shape (n, d)."""
    total = weights[0] * denoised[0]
    for weight, each in list(zip(weights, denoised, strict=False))[1:]:
        total = total + weight * each
    return total


def _b(step: float, variant: Variant) -> float:
    return step if variant == "bh1" else euler_weight(step)
