"""The training loop: EDM's denoising loss, Adam, an average of the weights, and a state that survives a kill."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kfpbench.data.dataset import Dataset
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.checkpoint import SHIPPED_LIMIT, CheckpointRecord, save_checkpoint
from kfpbench.networks.model_card import write_model_card
from kfpbench.training.batches import Batch, Batches, step_seed
from kfpbench.training.loop import TrainingLoop, require_identity, seeded
from kfpbench.training.options import TrainingOptions
from kfpbench.training.state import TrainingState, load_state, save_state

_BETAS = (0.9, 0.99)
# may change between two parts of one run; the data set is compared by its content, wherever it lies
_FREE_TO_CHANGE = {"name", "description", "images", "cooldown_images", "precision", "data"}


class Trainer(TrainingLoop):
    """Minimises E[w(s) |D(y + s eps; s, label) - y|^2 / d], w of EDM; resumes from ``folder`` where a state is there.

    Steps depend on the options and on the step's number alone: a run that was killed and resumed has the weights of one
    that was not, bit by bit on the same machine, precision and number of threads. Source: Karras et al. (2022), eq. (8)
    and Table 1; Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models", for the
    average: avg <- k avg + (1 - k) weights, k = 2^(-batch / half-life), half-life = min(ema_images, ema_ramp * seen).

    Raises CapabilityError for data without images, ParameterError for images that the levels cannot halve, SuiteError
    for a state of other options, DataError for one that cannot be read.
    """

    def __init__(self, options: TrainingOptions, dataset: Dataset, folder: Path, device: torch.device) -> None:
        self.low_precision = (
            _prefers_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
        )
        super().__init__(folder, device, options.batch_size, low_precision=self.low_precision)
        self.batches = Batches(dataset, options, device)
        self.options = options
        self.architecture = Architecture(
            **options.network.model_dump(), image_shape=self.batches.shape, classes=list(dataset.classes)
        )
        with seeded(options.seed, torch.device("cpu")):
            self.denoiser = self.architecture.build().to(device)
        self.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.parameters = dict(self.denoiser.named_parameters())
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimiser = torch.optim.Adam(
            self.denoiser.parameters(), lr=options.learning_rate, betas=_BETAS, fused=True
        )
        self.dataset = dataset
        self.identity = options.model_dump(mode="json", exclude=_FREE_TO_CHANGE)
        self.identity["fingerprint"], self.identity["train"] = dataset.fingerprint, len(dataset.train)
        self._resume()

    @property
    def total(self) -> int:
        """Images seen when the run is complete."""
        return self.options.images

    def write_checkpoint(self, path: Path, command: str) -> None:
        """Write the averaged weights in float16 with their record."""
        save_checkpoint(path, self.average, self.record(command))

    def export(self, path: Path, command: str) -> Path:
        """Write the checkpoint, at most 16 MiB, and its model card."""
        save_checkpoint(path, self.average, self.record(command), limit=SHIPPED_LIMIT)
        return write_model_card(path)

    def _write_state(self) -> None:
        moments = {name: self.optimiser.state[parameter] for name, parameter in self.parameters.items()}
        state = TrainingState(
            self.step,
            {name: value.detach() for name, value in self.parameters.items()},
            self.average,
            {name: moment["exp_avg"] for name, moment in moments.items()},
            {name: moment["exp_avg_sq"] for name, moment in moments.items()},
            self.seconds,
            self.hardware,
            self.identity,
        )
        save_state(self.folder, state)

    def record(self, command: str) -> CheckpointRecord:
        """What a checkpoint of the average says of itself; ``command`` is what makes it."""
        options = self.options.model_dump(mode="json", exclude={"data", "network", "name", "description"})
        training = self.training_record(command, self.dataset, self.options.name, options)
        return CheckpointRecord(architecture=self.architecture, training=training)

    def _next_step(self) -> Tensor:
        return self._one_step(self.batches.at(self.step))

    def _one_step(self, batch: Batch) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        images = batch.images.contiguous(memory_format=torch.channels_last)
        noisy = images + batch.sigma[:, None, None, None] * batch.noise
        with self._dropout_stream(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            denoised = self.denoiser(noisy, batch.sigma, batch.labels)
        errors = (denoised.float() - images).square().mean(dim=(1, 2, 3))
        loss = (self.denoiser.loss_weight(batch.sigma) * errors).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.options.clip_norm)
        self.optimiser.step()
        self._average_weights()
        return torch.stack([loss.detach(), norm.detach()])

    def _dropout_stream(self) -> AbstractContextManager[Any]:
        """Masks that depend on the step alone: dropout draws from torch's global generators."""
        if self.options.network.dropout == 0.0:
            return nullcontext()
        return seeded(step_seed(self.options.seed, 2, self.step), self.device)

    def _average_weights(self) -> None:
        seen = self.images + self.options.batch_size
        half_life = min(self.options.ema_images, max(self.options.ema_ramp * seen, 1.0))
        kept = 0.5 ** (self.options.batch_size / half_life)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1.0 - kept)

    def _rate(self) -> float:
        """The learning rate of the next step: a linear warm-up, constant, a linear cool-down to 0."""
        options, seen = self.options, self.images + self.options.batch_size
        rate = options.learning_rate * min(1.0, seen / max(options.warmup_images, 1))
        left = max(options.images - seen, 0)
        return rate * min(1.0, left / options.cooldown_images) if options.cooldown_images else rate

    def _resume(self) -> None:
        state = load_state(self.folder, self.device)
        if state is None:
            return
        require_identity(state.identity, self.identity, self.folder)
        state.require_shapes({name: tuple(value.shape) for name, value in self.parameters.items()}, str(self.folder))
        self.step = self._saved_step = state.step
        self.seconds, self.hardware = state.seconds, state.hardware
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state.weights[name])
                self.average[name].copy_(state.average[name])
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(state.step), device=self.device),
                    # fused Adam pairs memory cell with memory cell: moments need the strides of their parameter
                    "exp_avg": torch.empty_like(parameter).copy_(state.first_moment[name]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(state.second_moment[name]),
                }


def _prefers_bfloat16(device: torch.device) -> bool:
    """Whether products of matrices are faster in bfloat16 than in float32: on many CPUs they are 100 times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, device=device, dtype=dtype)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            (matrix @ matrix).sum().item()
            times.append(time.perf_counter() - begin)
        return min(times)

    return seconds(torch.bfloat16) < 0.7 * seconds(torch.float32)
