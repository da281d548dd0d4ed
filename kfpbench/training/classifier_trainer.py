"""Training of the feature classifier: SGD with Nesterov momentum on a triangular rate, mirrored and shifted images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, ParameterError
from kfpbench.networks.checkpoint import require_tensors, save_checkpoint
from kfpbench.networks.classifier import Classifier
from kfpbench.networks.classifier_checkpoint import (
    CLASSIFIER_LIMIT,
    Accuracy,
    ClassifierArchitecture,
    ClassifierRecord,
    load_classifier,
)
from kfpbench.networks.model_card import write_classifier_card
from kfpbench.training.loop import TrainingLoop, require_identity, seeded
from kfpbench.training.options import ClassifierOptions
from kfpbench.training.state import Tensors, read_parts, write_parts

_RISE = 0.2  # share of the steps over which the rate rises
_WHITENED = 5000  # images whose patches give the first layer
_FREE_TO_CHANGE = {"name", "description", "data"}  # between two parts; data are compared by their content
_PARTS = ("weights", "momentum", "order")


class ClassifierTrainer(TrainingLoop):
    """Fits a classifier to the training rows; resumes from ``folder`` where a state is there.

    The rate rises linearly over the first fifth of the steps and falls linearly to 0; matrices and filters are decayed,
    gains and shifts are not. One generator draws the order of the images, once an epoch, and how each batch is changed;
    it is part of the state, so that a run that was killed and resumed has the weights of one that was not, bit by bit
    on the same machine and number of threads. Cost epochs x N x some 4 10^8 operations for images of side 32.

    Raises CapabilityError for data without images or labels, ParameterError for fewer rows than a batch and for images
    too small for the levels or shifts, SuiteError for a state of other options, DataError for one that cannot be read.
    """

    report_steps: ClassVar[int] = 20

    def __init__(self, options: ClassifierOptions, dataset: Dataset, folder: Path, device: torch.device) -> None:
        if dataset.image_shape is None or dataset.train_labels is None:
            raise CapabilityError("a classifier needs labelled images", got=f"data set {dataset.name!r}")
        super().__init__(folder, device, options.batch_size, low_precision=False)
        self.options, self.dataset = options, dataset
        self.shape, self.labels = dataset.image_shape, dataset.train_labels
        self._per_epoch = len(dataset.train) // options.batch_size
        _check_sizes(options, dataset, self.shape)
        self.architecture = ClassifierArchitecture(
            image_shape=self.shape, classes=len(dataset.classes), channels=options.channels, width=options.width
        )
        with seeded(options.seed, torch.device("cpu")):
            self.network = self.architecture.build()
        self.network.whiten_stem(self._pictures(np.arange(min(_WHITENED, len(dataset.train)))))
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.parameters = dict(self.network.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.network.parameters() if p.dim() > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in self.network.parameters() if p.dim() <= 1]},
        ]
        self.optimiser = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=True)
        self._loss = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
        self._rng = np.random.default_rng(options.seed)
        self._order = self._rng.permutation(len(dataset.train))
        self.identity = options.model_dump(mode="json", exclude=_FREE_TO_CHANGE)
        self.identity["fingerprint"], self.identity["train"] = dataset.fingerprint, len(dataset.train)
        self._resume()

    @property
    def total(self) -> int:
        """Images seen when the run is complete."""
        return self.options.epochs * self._per_epoch * self.batch_size

    def write_checkpoint(self, path: Path, command: str) -> None:
        """Write the weights in float16 with their record."""
        save_checkpoint(path, self.network.state_dict(), self.record(command))

    def export(self, path: Path, command: str) -> Path:
        """Write the checkpoint, at most 4 MiB, with the accuracy of its rounded weights, and its model card."""
        save_checkpoint(path, self.network.state_dict(), self.record(command), limit=CLASSIFIER_LIMIT)
        found = measure(load_classifier(path).network, self.dataset)
        record = self.record(command).model_copy(update={"accuracy": found})
        save_checkpoint(path, self.network.state_dict(), record, limit=CLASSIFIER_LIMIT)
        return write_classifier_card(path)

    def record(self, command: str) -> ClassifierRecord:
        """What a checkpoint says of itself; ``command`` is what makes it."""
        options = self.options.model_dump(mode="json", exclude={"data", "name", "description"})
        training = self.training_record(command, self.dataset, self.options.name, options)
        return ClassifierRecord(
            architecture=self.architecture, training=training, classes=[str(name) for name in self.dataset.classes]
        )

    def _next_step(self) -> Tensor:
        options, place = self.options, self.step % self._per_epoch
        if self.step > 0 and place == 0:
            self._order = self._rng.permutation(len(self._order))
        rows = self._order[place * options.batch_size : (place + 1) * options.batch_size]
        batch = augment(self._pictures(rows), options.shift, self._rng).to(self.device)
        labels = torch.from_numpy(self.labels[rows]).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.network.train()
        loss = self._loss(self.network(batch.contiguous(memory_format=torch.channels_last)), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        self.optimiser.step()
        return torch.stack([loss.detach(), norm])

    def _pictures(self, rows: NDArray[np.int64]) -> Tensor:
        """Training images (b, C, H, W), a copy."""
        return torch.from_numpy(self.dataset.train[rows]).view(-1, *self.shape)

    def _rate(self) -> float:
        total = self.options.epochs * self._per_epoch
        part = min((self.step + 1) / (_RISE * total), max(total - self.step, 0) / ((1.0 - _RISE) * total))
        return self.options.learning_rate * part

    def _write_state(self) -> None:
        weights = {name: value.detach() for name, value in self.network.state_dict().items()}
        moments = {name: self.optimiser.state[p]["momentum_buffer"] for name, p in self.parameters.items()}
        record = {
            "seconds": self.seconds,
            "hardware": self.hardware,
            "identity": self.identity,
            "generator": self._rng.bit_generator.state,
        }
        parts = dict(zip(_PARTS, (weights, moments, {"rows": torch.from_numpy(self._order)}), strict=True))
        write_parts(self.folder, self.step, parts, record)

    def _resume(self) -> None:
        def build(record: dict[str, Any], parts: dict[str, Tensors]) -> bool:
            require_identity(dict(record["identity"]), self.identity, self.folder)
            where = str(self.folder)
            weights = self.network.state_dict()
            for part, expected in (("weights", weights), ("momentum", self.parameters)):
                require_tensors(_shapes(expected), _shapes(parts[part]), f"{where}: {part}")
            order = parts["order"]["rows"].cpu().numpy()
            if not np.array_equal(np.sort(order), np.arange(len(self._order))):
                raise DataError("the order of the images is no permutation", where=where)
            self._rng.bit_generator.state = record["generator"]
            self.step = self._saved_step = int(record["step"])
            self.seconds, self.hardware, self._order = float(record["seconds"]), dict(record["hardware"]), order
            with torch.no_grad():
                for name, kept in weights.items():
                    kept.copy_(parts["weights"][name])
                for name, parameter in self.parameters.items():
                    buffer = torch.empty_like(parameter).copy_(parts["momentum"][name])
                    self.optimiser.state[parameter] = {"momentum_buffer": buffer}
            return True

        read_parts(self.folder, self.device, _PARTS, "classifier", build)


def augment(images: Tensor, shift: int, rng: np.random.Generator) -> Tensor:
    """Mirror half of the images (n, C, H, W) and shift each by up to ``shift`` pixels, borders reflected."""
    mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    padded = functional.pad(images, (shift,) * 4, mode="reflect")
    height, width = images.shape[2:]
    moved = torch.empty_like(images)
    offsets = torch.from_numpy(rng.integers(0, 2 * shift + 1, size=(len(images), 2)))
    for down in range(2 * shift + 1):
        for right in range(2 * shift + 1):
            here = (offsets[:, 0] == down) & (offsets[:, 1] == right)
            moved[here] = padded[here, :, down : down + height, right : right + width]
    return moved


def measure(network: Classifier, dataset: Dataset) -> dict[str, Accuracy]:
    """The accuracy on the validation and test images, as far as there are any with labels."""
    splits = {
        "validation": (dataset.validation, dataset.validation_labels),
        "test": (dataset.test, dataset.test_labels),
    }
    found = {}
    for name, (rows, labels) in splits.items():
        if labels is not None and len(rows) and dataset.image_shape is not None:
            share = accuracy(network, torch.tensor(rows).view(-1, *dataset.image_shape), torch.tensor(labels))
            found[name] = Accuracy(share=share, images=len(rows))
    return found


@torch.inference_mode()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images (n, C, H, W) whose largest logit is their label's."""
    found = torch.cat([network(part).argmax(1) for part in images.split(500)])
    return float((found == labels).double().mean())


def _check_sizes(options: ClassifierOptions, dataset: Dataset, shape: tuple[int, int, int]) -> None:
    if len(dataset.train) < options.batch_size:
        raise ParameterError(
            "a batch has more images than there are",
            got=options.batch_size,
            allowed=f"1 to {len(dataset.train)}",
            remedy="Lower batch_size.",
        )
    side, levels = min(shape[1:]), len(options.channels)
    if (side - 1) >> levels < 1:
        raise ParameterError(
            "the images are too small to be halved so often",
            got=f"{shape[1]} x {shape[2]} pixels, {levels} levels",
            allowed=f"at most {(side - 1).bit_length() - 1} levels",
            remedy="Give fewer channels.",
        )
    if options.shift >= side:
        raise ParameterError("images are shifted by more than they are wide", got=options.shift, allowed=f"< {side}")


def _shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}
