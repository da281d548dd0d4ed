"""The training loop: EDM's denoising loss, Adam, an average of the weights, and a state that survives a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kfpbench import __version__
from kfpbench.data.dataset import Dataset
from kfpbench.errors import NumericalError, SuiteError
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.checkpoint import CheckpointRecord, Hardware, TrainingRecord
from kfpbench.runner.environment import describe_environment
from kfpbench.training.batches import Batch, Batches, step_seed
from kfpbench.training.options import TrainingOptions
from kfpbench.training.state import TrainingState, load_state, save_state

_BETAS = (0.9, 0.99)
_REPORT_STEPS = 50
# may change between two parts of one run; the data set is compared by its content, wherever it lies
_FREE_TO_CHANGE = {"name", "description", "images", "cooldown_images", "precision", "data"}


@dataclass(frozen=True)
class Progress:
    """What is known after a step: images seen, the mean loss since the last report, images a second, learning rate."""

    images: int
    loss: float
    speed: float
    rate: float


class Trainer:
    """Minimises E[w(s) |D(y + s eps; s, label) - y|^2 / d], w of EDM; resumes from ``folder`` where a state is there.

    Steps depend on the options and on the step's number alone: a run that was killed and resumed has the weights of one
    that was not, bit by bit on the same machine, precision and number of threads. Source: Karras et al. (2022), eq. (8)
    and Table 1; Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models", for the
    average: avg <- k avg + (1 - k) weights, k = 2^(-batch / half-life), half-life = min(ema_images, ema_ramp * seen).

    Raises CapabilityError for data without images, ParameterError for images that the levels cannot halve, SuiteError
    for a state of other options, DataError for one that cannot be read.
    """

    def __init__(self, options: TrainingOptions, dataset: Dataset, folder: Path, device: torch.device) -> None:
        self.batches = Batches(dataset, options, device)
        self.options, self.folder, self.device = options, folder, device
        self.architecture = Architecture(
            **options.network.model_dump(), image_shape=self.batches.shape, classes=list(dataset.classes)
        )
        with _seeded(options.seed, torch.device("cpu")):
            self.denoiser = self.architecture.build().to(device)
        self.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.parameters = dict(self.denoiser.named_parameters())
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimiser = torch.optim.Adam(
            self.denoiser.parameters(), lr=options.learning_rate, betas=_BETAS, fused=True
        )
        self.step, self.seconds = 0, 0.0
        self.low_precision = (
            _prefers_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
        )
        self.dataset = dataset
        self.identity = options.model_dump(mode="json", exclude=_FREE_TO_CHANGE)
        self.identity["fingerprint"], self.identity["train"] = dataset.fingerprint, len(dataset.train)
        self.hardware: dict[str, dict[str, float]] = {}
        self._here = _hardware_words(device, self.low_precision)
        self._saved_step = 0
        self._resume()

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.options.batch_size

    @property
    def complete(self) -> bool:
        """Whether as many images were seen as the options ask for."""
        return self.images >= self.options.images

    def run(
        self,
        report: Callable[[Progress], None],
        *,
        seconds: float = math.inf,
        save_every: float = 300.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until the run is complete (True), or ``seconds`` have passed or ``stopped()`` holds (False).

        The state is saved every ``save_every`` seconds and at the end; an exception leaves the one saved last. Raises
        NumericalError when the loss or its gradient is not finite.
        """
        begin = last = saved = time.perf_counter()
        before, here = self.seconds, self.hardware.setdefault(self._here, {"images": 0, "seconds": 0.0})
        spent = here["seconds"]
        seen: list[Tensor] = []  # loss and gradient norm of each step since the last report, (2,)

        def look() -> float:
            """Wait for the device, account for the time, and return the mean loss."""
            mean = self._mean_loss(seen)
            self.seconds = before + time.perf_counter() - begin
            here["seconds"] = spent + time.perf_counter() - begin
            return mean

        def tell() -> None:
            nonlocal last
            mean = look()
            now = time.perf_counter()
            report(Progress(self.images, mean, len(seen) * self.options.batch_size / (now - last), self._rate()))
            seen.clear()
            last = now

        while not self.complete and time.perf_counter() - begin < seconds and not stopped():
            seen.append(self._one_step(self.batches.at(self.step)))
            self.step += 1
            here["images"] += self.options.batch_size
            if len(seen) == _REPORT_STEPS:
                tell()
            if time.perf_counter() - saved > save_every:
                look()
                self.save()
                saved = time.perf_counter()
        if seen:
            tell()
        self.save()
        return self.complete

    def save(self) -> None:
        """Write the state into the folder, unless it holds this step already."""
        if self.step == self._saved_step:
            return
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
        self._saved_step = self.step

    def record(self, command: str) -> CheckpointRecord:
        """What a checkpoint of the average says of itself; ``command`` is what makes it."""
        training = TrainingRecord(
            name=self.options.name,
            command=command,
            dataset=self.dataset.name,
            fingerprint=self.dataset.fingerprint,
            rows=len(self.dataset.train),
            images=self.images,
            steps=self.step,
            seconds=self.seconds,
            hardware=[
                Hardware(what=what, images=int(part["images"]), seconds=float(part["seconds"]))
                for what, part in self.hardware.items()
                if part["images"]
            ],
            torch=str(torch.__version__),
            kfpbench=__version__,
            options=self.options.model_dump(mode="json", exclude={"data", "network", "name", "description"}),
        )
        return CheckpointRecord(architecture=self.architecture, training=training)

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
        return _seeded(step_seed(self.options.seed, 2, self.step), self.device)

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

    def _mean_loss(self, seen: list[Tensor]) -> float:
        """The mean loss of some steps; a gradient that is not finite spoils the weights as a loss does."""
        if not seen:
            return math.nan
        loss, norm = torch.stack(seen).mean(dim=0).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NumericalError(
                "the training loss or its gradient is not finite",
                got=f"loss {loss}, gradient norm {norm}, at {self.images} images",
                remedy="Take a smaller learning_rate in a new folder; the state saved last is kept.",
                where=str(self.folder),
            )
        return float(loss)

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


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A block in which torch's global generators start from a seed; they go on as before after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _hardware_words(device: torch.device, low_precision: bool) -> str:
    """Processor, threads and precision; no name of a machine."""
    environment = describe_environment(device)
    if environment["gpu"]:
        what = str(environment["gpu"]["name"])
    else:
        what = f"{environment['cpu']['model'] or environment['machine']}, {torch.get_num_threads()} threads"
    return f"{what}, {'bfloat16' if low_precision else 'float32'}"


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
