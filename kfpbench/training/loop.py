"""The loop of every training: steps, reports, a clock, and a state that is saved now and then."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from kfpbench import __version__
from kfpbench.data.dataset import Dataset
from kfpbench.errors import NumericalError, SuiteError
from kfpbench.networks.checkpoint import Hardware, TrainingRecord
from kfpbench.runner.environment import describe_environment


@dataclass(frozen=True)
class Progress:
    """What is known after a step: images seen, the mean loss since the last report, images a second, learning rate."""

    images: int
    loss: float
    speed: float
    rate: float


class TrainingLoop(ABC):
    """Steps until ``total`` images are seen, from the state in ``folder`` on; what a step is, a subclass says.

    ``seconds`` were spent so far, in all processes; ``hardware`` gives images and seconds for each machine, in words.
    """

    report_steps: ClassVar[int] = 50

    def __init__(self, folder: Path, device: torch.device, batch_size: int, *, low_precision: bool) -> None:
        self.folder, self.device, self.batch_size = folder, device, batch_size
        self.step, self.seconds = 0, 0.0
        self.hardware: dict[str, dict[str, float]] = {}
        self._here = _hardware_words(device, low_precision)
        self._saved_step = 0

    @property
    @abstractmethod
    def total(self) -> int:
        """Images seen when the run is complete."""

    @abstractmethod
    def write_checkpoint(self, path: Path, command: str) -> None:
        """Write the weights as they are used, with a record of their making; ``command`` is what makes them."""

    @abstractmethod
    def export(self, path: Path, command: str) -> Path:
        """Write the checkpoint as it may be shipped, and its model card beside it; return the card's path."""

    @abstractmethod
    def _next_step(self) -> Tensor:
        """Take the step with the number ``step``; (loss, gradient norm), shape (2,)."""

    @abstractmethod
    def _rate(self) -> float:
        """The learning rate of the next step."""

    @abstractmethod
    def _write_state(self) -> None:
        """Write the state into the folder."""

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.batch_size

    @property
    def complete(self) -> bool:
        """Whether as many images were seen as the options ask for."""
        return self.images >= self.total

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
            report(Progress(self.images, mean, len(seen) * self.batch_size / (now - last), self._rate()))
            seen.clear()
            last = now

        while not self.complete and time.perf_counter() - begin < seconds and not stopped():
            seen.append(self._next_step())
            self.step += 1
            here["images"] += self.batch_size
            if len(seen) == self.report_steps:
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
        self._write_state()
        self._saved_step = self.step

    def hardware_record(self) -> list[Hardware]:
        """What the run has been on, without machines that have seen no image."""
        return [
            Hardware(what=what, images=int(part["images"]), seconds=float(part["seconds"]))
            for what, part in self.hardware.items()
            if part["images"]
        ]

    def training_record(self, command: str, dataset: Dataset, name: str, options: dict[str, Any]) -> TrainingRecord:
        """How far the training has come, on what, from which data, by which ``command`` and ``options``."""
        return TrainingRecord(
            name=name,
            command=command,
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            rows=len(dataset.train),
            images=self.images,
            steps=self.step,
            seconds=self.seconds,
            hardware=self.hardware_record(),
            torch=str(torch.__version__),
            kfpbench=__version__,
            options=options,
        )

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


def require_identity(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise SuiteError unless a state's identity is that of these options."""
    differing = sorted(key for key in wanted if found.get(key) != wanted[key])
    if differing:
        raise SuiteError(
            "the folder holds the state of another training run",
            got=f"different: {', '.join(differing)}",
            remedy="Choose another --out, or remove the folder.",
            where=str(folder),
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
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
