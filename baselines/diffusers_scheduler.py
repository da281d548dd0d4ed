"""Any scheduler of diffusers as a sampler."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize, Process
from kfpbench_baselines.integrator import NOISE_BYTES
from kfpbench_baselines.schedules import check_grid, time_grid

_WHERE = "diffusers_scheduler"
_TRAINED = 1000  # levels of the discrete chain that stands for the process
_MATCH = 0.01  # relative difference of noise levels at which a start counts as the scheduler's own
_TRIAL = 4  # coordinates of the trial's rows
_REFUSED = {"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"}  # they lead from the data to the noise
Denoiser = Callable[[Tensor, float, float], Tensor]


class DiffusersScheduler:
    """The loop of a diffusers pipeline around ``scheduler``, a class of diffusers such as "EulerDiscreteScheduler".

    The scheduler is built for the process: schedulers of a discrete chain get 1,000 levels uniform in log(sigma /
    alpha) from t_min to t_max as ``trained_betas``, EDM's get ``sigma_min`` and ``sigma_max``, iPNDM the grid ``edm``;
    samples are not clipped, and the chain starts at its top (``timestep_spacing`` "trailing"). ``options`` go to the
    class's constructor and come before all of these. At every evaluation the denoiser is asked at the (alpha, sigma)
    that the scheduler believes it has, and answers as the network would: eps = (x - alpha D) / sigma, or what EDM's
    preconditioning expects, or v = alpha eps - sigma D for iPNDM. Schedulers end at sigma = 0, not at t_min.

    Noise: from the stream where ``step`` takes ``variance_noise``, else from one generator a row that is seeded by the
    stream. A trial on data of a single point, with no score, checks at fit that the scheduler ends at that point and
    that a row does not depend on the batch; a class that fails it (flow matching, inversion, inpainting, ...) is
    refused.

    NFE and order: the scheduler's. ``steps`` is its num_inference_steps. Raises CapabilityError without diffusers or
    for a class that cannot serve, ParameterError for an unknown class or option.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"steps": 5},
        {"scheduler": "EDMEulerScheduler", "steps": 4},
        {"scheduler": "EulerAncestralDiscreteScheduler", "steps": 4},
        {"steps": 4, "options": {"algorithm_type": "sde-dpmsolver++"}},
    )

    def __init__(
        self,
        scheduler: str = "DPMSolverMultistepScheduler",
        steps: Annotated[int, Field(ge=1)] = 20,
        options: dict[str, bool | int | float | str] | None = None,
    ) -> None:
        check_grid(_WHERE, steps, "edm")
        self.scheduler, self.steps, self.options = scheduler, steps, dict(options or {})
        for name in ("prediction_type", "trained_betas"):
            if name in self.options:
                raise ParameterError(f"the option {name} is the adapter's own", remedy="Leave it out.", where=_WHERE)

    def fit(self, problem: Problem) -> FittedDiffusersScheduler:
        """Find the class, build it for the process and try it on data of one point."""
        cls = _scheduler_class(self.scheduler)
        keywords = {**_keywords(cls, problem.process, self.steps), **self.options}
        _check_options(cls, keywords)
        fitted = FittedDiffusersScheduler(problem, cls, keywords, self.steps)
        _try(fitted)
        return fitted

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: ten batches, for the history of a method of order 4 and what a step makes of it, and their noise."""
        return (10 * size.itemsize + NOISE_BYTES) * size.batch * size.dimension


@dataclass(frozen=True)
class FittedDiffusersScheduler:
    """A scheduler's class with its parameters; every batch gets a scheduler of its own, for they keep a history."""

    problem: Problem
    scheduler: type
    keywords: dict[str, Any]
    steps: int

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at sigma = 0 (n, d); draw 0 of the stream, times the scheduler's init_noise_sigma, is the start."""
        scheduler = self.ready()
        return self._drive(scheduler, scheduler.init_noise_sigma * noise.normal(0), noise)

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor:
        """x at sigma = 0 from x (n, d) at t_max. Raises CapabilityError where the scheduler starts at another level."""
        scheduler, process = self.ready(), self.problem.process
        alpha, sigma = _level(scheduler, scheduler.timesteps[0])
        given = math.exp(process.log_ratio(process.t_max))
        if abs(sigma / alpha / given - 1.0) > _MATCH:
            raise CapabilityError(
                "this scheduler does not start at the noise level of the given rows",
                got=f"sigma / alpha = {sigma / alpha:.4g}",
                allowed=f"{given:.4g}",
                remedy="Leave the options that choose its noise levels out.",
                where=_WHERE,
            )
        return self._drive(scheduler, alpha / process.alpha(process.t_max) * x, noise)

    def ready(self) -> Any:
        """A fresh scheduler with its timesteps set."""
        scheduler = self.scheduler(**self.keywords)
        scheduler.set_timesteps(self.steps, device=self.problem.device)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def _drive(self, scheduler: Any, x: Tensor, noise: NoiseStream) -> Tensor:
        return drive(scheduler, x, noise, self.problem.score.denoise)

    def describe(self) -> dict[str, Any]:
        """The scheduler and its number of steps."""
        return {"scheduler": self.scheduler.__name__, "steps": self.steps}


def drive(scheduler: Any, x: Tensor, noise: NoiseStream, denoise: Denoiser) -> Tensor:
    """From x (n, d) at the scheduler's first timestep to its end; ``noise`` gives the draws 1, 2, ... ."""
    taken = inspect.signature(scheduler.step).parameters
    dtype = x.dtype
    options: dict[str, Any] = {}
    if "generator" in taken and "variance_noise" not in taken:
        seeds = noise.uniform_integers(1, 2**31).tolist()
        options["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    for draw, t in enumerate(scheduler.timesteps, start=1):
        scheduler.scale_model_input(x, t)  # some count their steps from here; what it returns is the network's affair
        alpha, sigma = _level(scheduler, t)
        output = _network_output(scheduler, x, alpha, sigma, denoise(x.to(dtype), alpha, sigma))
        if "variance_noise" in taken:
            options["variance_noise"] = noise.normal(draw)
        x = scheduler.step(output, t, x, **options).prev_sample
    return x.to(dtype)


def _level(scheduler: Any, t: Tensor) -> tuple[float, float]:
    """(alpha, sigma) of the rows that the scheduler holds at its timestep t."""
    if not hasattr(scheduler, "sigmas") and hasattr(scheduler, "alphas_cumprod"):
        kept = float(scheduler.alphas_cumprod[int(t)])
        return math.sqrt(kept), math.sqrt(1.0 - kept)
    index = scheduler.step_index or 0
    if _predicts_v(scheduler):
        return float(scheduler.alphas[index]), float(scheduler.betas[index])
    sigmas = scheduler.sigmas
    if not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol"):
        sigmas = scheduler.sigmas_interpol  # the middle stage of DPM-Solver-2
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(sigmas[index])
        return float(alpha), float(sigma)
    return 1.0, float(sigmas[index])


def _predicts_v(scheduler: Any) -> bool:
    return type(scheduler).__name__ == "IPNDMScheduler"


def _network_output(scheduler: Any, x: Tensor, alpha: float, sigma: float, denoised: Tensor) -> Tensor:
    """What the scheduler's network would return, (n, d), for rows x whose denoised form is ``denoised``."""
    if hasattr(scheduler, "precondition_outputs"):  # denoised = skip x + out F is affine in both: read skip and out off
        one, none, level = torch.ones(1), torch.zeros(1), torch.tensor(sigma)
        skip = float(scheduler.precondition_outputs(one, none, level))
        out = float(scheduler.precondition_outputs(none, one, level))
        return (denoised - skip * x) / out
    eps = (x - alpha * denoised) / sigma
    return alpha * eps - sigma * denoised if _predicts_v(scheduler) else eps


def _keywords(cls: type, process: Process, steps: int) -> dict[str, Any]:
    """The constructor's parameters that make the scheduler one for the process."""
    taken = inspect.signature(cls).parameters
    wished: dict[str, Any] = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    first, last = process.log_ratio(process.t_max), process.log_ratio(process.t_min)
    if hasattr(cls, "precondition_outputs"):
        wished |= {"sigma_min": math.exp(last), "sigma_max": math.exp(first)}
    elif cls.__name__ == "IPNDMScheduler":
        # its "betas" are the sigmas of a variance-preserving chain, one a step and the end's
        levels = [process.log_ratio(t) for t in time_grid(process, steps - 1, "edm")] if steps > 1 else [first]
        wished["trained_betas"] = [*(_kept(-level) ** 0.5 for level in levels), 0.0]
    else:
        kept = [_kept(last + (first - last) * index / (_TRAINED - 1)) for index in range(_TRAINED)]
        before = [1.0, *kept[:-1]]
        wished["trained_betas"] = [1.0 - now / then for now, then in zip(kept, before, strict=True)]
        wished |= {"num_train_timesteps": _TRAINED, "prediction_type": "epsilon"}
    return {name: value for name, value in wished.items() if name in taken}


def _kept(log_ratio: float) -> float:
    """alpha^2 = 1 / (1 + (sigma / alpha)^2) of a variance-preserving process."""
    return 1.0 / (1.0 + math.exp(2.0 * log_ratio))


def _scheduler_class(name: str) -> type:
    try:
        schedulers = importlib.import_module("diffusers.schedulers")
    except ImportError as error:
        raise CapabilityError(
            "the sampler diffusers_scheduler needs the package diffusers",
            remedy='Run: pip install "kfpbench[diffusers]"',
            where=_WHERE,
        ) from error
    known = [each for each in dir(schedulers) if each.endswith("Scheduler")]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or ["EulerDiscreteScheduler", "DDIMScheduler"]
        raise ParameterError(
            "diffusers has no such scheduler", got=name, remedy=f"Did you mean {', '.join(close)}?", where=_WHERE
        )
    try:
        cls: type = getattr(schedulers, name)
        taken = inspect.signature(cls).parameters
        served = "trained_betas" in taken or hasattr(cls, "precondition_outputs")
    except (ImportError, AttributeError) as error:  # diffusers puts a stand-in where a package of its own is missing
        raise CapabilityError(
            f"diffusers cannot provide this scheduler: {' '.join(str(error).split())}", got=name, where=_WHERE
        ) from error
    if not served or name in _REFUSED:
        raise CapabilityError(
            "this scheduler does not lead from noise to data along x_t = alpha x_0 + sigma eps",
            got=name,
            allowed="schedulers of a chain of betas, such as DDIMScheduler, and EDM's, such as EDMEulerScheduler",
            where=_WHERE,
        )
    return cls


def _check_options(cls: type, keywords: dict[str, Any]) -> None:
    taken = list(inspect.signature(cls).parameters)
    for name in keywords:
        if name not in taken:
            raise ParameterError(f"{cls.__name__} has no such option", got=name, allowed=", ".join(taken), where=_WHERE)


def _try(fitted: FittedDiffusersScheduler) -> None:
    """Raise CapabilityError unless data of one point a row are found, row by row the same in a batch and alone."""
    points = torch.linspace(-0.8, 0.8, 3 * _TRIAL, dtype=torch.float64).reshape(3, _TRIAL)

    def run(rows: list[int]) -> Tensor:
        indices = torch.tensor(rows, device=fitted.problem.device)
        noise = NoiseStream(0, indices, _TRIAL, torch.float64)
        scheduler, held = fitted.ready(), points[rows].to(fitted.problem.device)
        start = scheduler.init_noise_sigma * noise.normal(0)
        return drive(scheduler, start, noise, lambda x, alpha, sigma: held).cpu()

    reason = ""
    try:
        whole, single = run([0, 1, 2]), torch.cat([run([row]) for row in (0, 1, 2)])
    except Exception as error:  # a scheduler may refuse its parameters, or want an argument more, in any way
        raise CapabilityError(
            f"this scheduler fails: {type(error).__name__}: {error}",
            got=fitted.scheduler.__name__,
            remedy="See the options of its class in the documentation of diffusers.",
            where=_WHERE,
        ) from error
    process = fitted.problem.process
    missed = float((whole - points).abs().max())
    if not missed < 0.02 + 10.0 * math.exp(process.log_ratio(process.t_min)):
        reason = f"from data of a single point it ends {missed:.2g} away from it"
    elif not torch.allclose(whole, single, rtol=0.0, atol=1e-6):
        reason = "a row that it draws depends on the batch"
    if reason:
        raise CapabilityError(
            f"this scheduler cannot serve as a sampler: {reason}", got=fitted.scheduler.__name__, where=_WHERE
        )
