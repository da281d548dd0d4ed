"""The training loop: EDM's denoising loss, Adam, an average of the weights, and a state that survives a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, NumericalError, SuiteError
from kfpbench.networks.edm_preconditioning import EdmDenoiser
from kfpbench.networks.unet import UNet
from kfpbench.training.batches import Batch, Batches
from kfpbench.training.options import TrainingOptions
from kfpbench.training.state import TrainingState, load_state, save_state

_BETAS = (0.9, 0.99)
_FREE_TO_CHANGE = {"name", "description", "images", "cooldown_images", "precision"}  # between two parts of one run


@dataclass(frozen=True)
class Progress:
    """What is known after a step: images seen, the mean loss of the last 50 steps, images a second."""

    images: int
    loss: float
    speed: float
    rate: float


class Trainer:
    """Minimises E[w(s) |D(y + s eps; s, label) - y|^2 / d], w of EDM; resumes from ``folder`` where a state is there.

    Steps depend on the options and on the step's number alone: a run that was killed and resumed has the weights of one
    that was not, bit by bit on the same machine and number of threads. Source: Karras et al. (2022), eq. (8) and
    Table 1; Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models", for the average.

    Raises CapabilityError for data without images, SuiteError for a state of other options, NumericalError when the
    loss is not finite.
    """

    def __init__(self, options: TrainingOptions, dataset: Dataset, folder: Path, device: torch.device) -> None:
        if dataset.image_shape is None:
            raise CapabilityError("training needs images", got=f"data set {dataset.name!r}", allowed="one with images")
        self.options, self.folder, self.device = options, folder, device
        self.image_shape, self.classes = dataset.image_shape, len(dataset.classes)
        torch.manual_seed(options.seed)
        self.denoiser = build_denoiser(self.architecture()).to(device)
        self.denoiser.to(memory_format=torch.channels_last)
        self.average = {name: value.detach().clone() for name, value in self.denoiser.named_parameters()}
        self.optimiser = torch.optim.Adam(
            self.denoiser.parameters(), lr=options.learning_rate, betas=_BETAS, fused=True
        )
        self.batches = Batches(dataset, options, device)
        self.step, self.seconds = 0, 0.0
        self.low_precision = (
            _prefers_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
        )
        self.identity = options.model_dump(mode="json", exclude=_FREE_TO_CHANGE)
        self.identity["fingerprint"], self.identity["train"] = dataset.fingerprint, len(dataset.train)
        self._resume()

    def architecture(self) -> dict[str, Any]:
        """What ``build_denoiser`` needs to build this network again."""
        chosen = self.options.network.model_dump(mode="json")
        return {**chosen, "image_shape": list(self.image_shape), "classes": self.classes}

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.options.batch_size

    def run(
        self,
        report: Callable[[Progress], None],
        *,
        seconds: float = math.inf,
        save_every: float = 300.0,
    ) -> bool:
        """Train until ``images`` are seen (True) or ``seconds`` have passed (False), saving the state on the way."""
        begin = last = saved = time.perf_counter()
        before = self.seconds
        losses: list[Tensor] = []
        last_step = self.step
        try:
            while self.images < self.options.images and time.perf_counter() - begin < seconds:
                losses.append(self._one_step(self.batches.at(self.step)))
                self.step += 1
                now = time.perf_counter()
                self.seconds = before + now - begin
                if len(losses) == 50:
                    mean = float(torch.stack(losses).mean())
                    self._require_finite(mean)
                    speed = (self.step - last_step) * self.options.batch_size / (now - last)
                    report(Progress(self.images, mean, speed, self._rate()))
                    losses, last, last_step = [], now, self.step
                if now - saved > save_every:
                    self.save()
                    saved = now
        finally:
            if not losses or bool(torch.isfinite(torch.stack(losses)).all()):
                self.save()
        return self.images >= self.options.images

    def save(self) -> None:
        """Write the state into the folder."""
        moments = {name: self.optimiser.state[p] for name, p in self.denoiser.named_parameters()}
        if not all(moments.values()):  # before the first step
            return
        save_state(
            self.folder,
            TrainingState(
                self.step,
                {name: value.detach() for name, value in self.denoiser.named_parameters()},
                self.average,
                {name: moment["exp_avg"] for name, moment in moments.items()},
                {name: moment["exp_avg_sq"] for name, moment in moments.items()},
                self.seconds,
                self.identity,
            ),
        )

    def _one_step(self, batch: Batch) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        images = batch.images.contiguous(memory_format=torch.channels_last)
        noisy = images + batch.sigma[:, None, None, None] * batch.noise
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            denoised = self.denoiser(noisy, batch.sigma, batch.labels)
        errors = (denoised.float() - images).square().mean(dim=(1, 2, 3))
        loss = (self.denoiser.loss_weight(batch.sigma) * errors).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.options.clip_norm)
        self.optimiser.step()
        self._average_weights()
        return loss.detach()

    def _average_weights(self) -> None:
        seen = self.images + self.options.batch_size
        half_life = min(self.options.ema_images, max(self.options.ema_ramp * seen, 1.0))
        kept = 0.5 ** (self.options.batch_size / half_life)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.denoiser.parameters()), 1.0 - kept)

    def _rate(self) -> float:
        options, seen = self.options, self.images + self.options.batch_size
        rate = options.learning_rate * min(1.0, seen / max(options.warmup_images, 1))
        left = max(options.images - seen, 0)
        return rate * min(1.0, left / options.cooldown_images) if options.cooldown_images else rate

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NumericalError(
                "the training loss is not finite",
                got=f"{loss} after {self.images} images",
                remedy="Take a smaller learning_rate; the last saved state is kept.",
                where=str(self.folder),
            )

    def _resume(self) -> None:
        state = load_state(self.folder, self.device)
        if state is None:
            return
        differing = sorted(key for key in self.identity if state.identity.get(key) != self.identity[key])
        if differing:
            raise SuiteError(
                "the folder holds the state of another training run",
                got=f"different: {', '.join(differing)}",
                remedy="Choose another --out, or remove the folder.",
                where=str(self.folder),
            )
        self.step, self.seconds = state.step, state.seconds
        with torch.no_grad():
            for name, parameter in self.denoiser.named_parameters():
                parameter.copy_(state.weights[name])
                self.average[name].copy_(state.average[name])
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(state.step)),
                    "exp_avg": state.first_moment[name].clone(memory_format=torch.preserve_format),
                    "exp_avg_sq": state.second_moment[name].clone(memory_format=torch.preserve_format),
                }


def build_denoiser(architecture: dict[str, Any]) -> EdmDenoiser:
    """The untrained network of an architecture record."""
    shape = dict(architecture)
    sigma_data = shape.pop("sigma_data")
    return EdmDenoiser(UNet(**shape), sigma_data)


def _prefers_bfloat16(device: torch.device) -> bool:
    """Whether a product of matrices is faster in bfloat16 than in float32 here: on many CPUs it is 100 times slower."""

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, device=device, dtype=dtype)
        (matrix @ matrix).sum().item()
        begin = time.perf_counter()
        (matrix @ matrix).sum().item()
        return time.perf_counter() - begin

    return seconds(torch.bfloat16) < 0.7 * seconds(torch.float32)
