"""Networks that diffusers has saved: a folder with a UNet2DModel, as of DDPM on CIFAR-10."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, ParameterError
from kfpbench.protocols import ProblemSize
from kfpbench.scores.images import pixels_of, require_images
from kfpbench.scores.network import NetworkScore
from kfpbench.scores.weight_files import fill, fingerprint, read_weights

_CONFIG, _WEIGHTS, _SCHEDULER = "config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"
_PICKLE = "diffusion_pytorch_model.bin"
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
# names of attention layers before diffusers 0.15, and since
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEVEL_SLACK = 1e-6  # relative: rounding of a level that is meant to be the largest


class DiffusersUNet:
    """E[x_0 | x] from a diffusers ``UNet2DModel`` trained with T discrete noise levels.

    With s = sigma / alpha, the input is brought to the variance-preserving convention, x_vp = a x / alpha with
    a = 1 / sqrt(1 + s^2) and b = s a, and the time step t is the one with the same s on the training schedule,
    interpolated linearly in log s between the integers. Then D = (x_vp - b F) / a, a x_vp - b F or F, for a network
    F(x_vp, t) that predicts epsilon, v or the sample. Below the smallest level of the schedule the score is held:
    D(y; s) = y + (s / s_0)^2 (D(y; s_0) - y), y = x / alpha. Nothing is clipped, whatever the scheduler's file says:
    a clipped denoiser's flow has another law.

    ``folder`` holds config.json and diffusion_pytorch_model.safetensors, and scheduler_config.json (without it: DDPM,
    1,000 steps, betas from 1e-4 to 0.02, epsilon), or is a saved pipeline with ``unet`` and ``scheduler`` folders. It
    is a folder of this machine: nothing is downloaded, no code from it is run, and pickles (.bin) are not read.
    ``label`` is the class of every sample of a class-conditional network. ``tile`` images go through it at once.

    Cost: one evaluation of the network a row. Raises DataError for missing or unfit files, CapabilityError without
    diffusers (extra ``diffusers``), for a data set of other images, and for levels above those that it was trained on.
    Source: Ho, Jain, Abbeel (2020), eq. (4) and (9); Salimans and Ho (2022), sec. 4, for v.
    """

    contract_examples: ClassVar[tuple[dict[str, object], ...]] = ({"folder": "ddpm-cifar10-32"},)

    def __init__(
        self,
        folder: str,
        label: Annotated[int, Field(ge=0)] | None = None,
        tile: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        self.folder, self.label, self.tile = folder, label, tile

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundDiffusersUNet:
        """Read the network and its schedule, and put the network on a device."""
        shape = require_images(dataset, "diffusers_unet")
        unet, scheduler = _find(Path(self.folder).expanduser())
        config = _read_json(unet / _CONFIG)
        options = _read_json(scheduler) if scheduler.is_file() else {}
        _check(config, options, shape, self.label, unet)
        log_ratios = _log_ratios(options, scheduler)
        network = _build(config, unet / _CONFIG)
        fill(network, _renamed(read_weights(unet / _WEIGHTS)), str(unet / _WEIGHTS))
        # diffusers' own ``to`` warns of networks in mixed precision, whether this is one or not
        network = nn.Module.to(network, device, dtype).eval().requires_grad_(False)
        prediction = options.get("prediction_type", "epsilon")
        return BoundDiffusersUNet(network, log_ratios, prediction, self.label, shape, self.tile)

    def fingerprint(self) -> str | None:
        """SHA-256 of the weights and of the files that say how they are used: config.json, and scheduler_config.json
        where there is one. None where weights or configuration are missing.
        """
        unet, scheduler = _places(Path(self.folder).expanduser())
        read = [unet / _CONFIG, unet / _WEIGHTS]
        return fingerprint(*read, *([scheduler] if scheduler.is_file() else []))

    def working_memory(self, size: ProblemSize) -> int:
        """Bytes: the weights, in the file (as if it held half precision) and in the network, a tile's activations, and
        two batches.
        """
        unet, _ = _places(Path(self.folder).expanduser())
        batches = 2 * size.itemsize * size.batch * size.dimension
        if not ((unet / _CONFIG).is_file() and (unet / _WEIGHTS).is_file()):
            return batches
        config = _read_json(unet / _CONFIG)
        channels = config.get("block_out_channels", (224, 448, 672, 896))
        layers = config.get("layers_per_block", 2)
        pixels = pixels_of(size.dimension)
        levels = sum(count / 4**level for level, count in enumerate(channels))
        middle = 2 * (pixels / 4 ** (len(channels) - 1)) ** 2
        # at worst a block of the way up holds some 12 arrays of its channels, a level its skips, the middle attention
        activations = pixels * levels * (12 + layers + 1) + middle + 6 * size.dimension
        weights = (size.itemsize - 1) * (unet / _WEIGHTS).stat().st_size  # 1 + 2 parts, and 4 in float64
        return int(weights + batches + size.itemsize * min(self.tile, size.batch) * activations)


class BoundDiffusersUNet(NetworkScore):
    """A UNet2DModel on a device; ``log_ratios`` (T,) is log(sigma/alpha) of its time steps, increasing."""

    def __init__(
        self,
        network: nn.Module,
        log_ratios: np.ndarray,
        prediction: str,
        label: int | None,
        image_shape: tuple[int, int, int],
        tile: int,
    ) -> None:
        super().__init__(image_shape, tile)
        self.network, self.log_ratios, self.prediction, self.label = network, log_ratios, prediction, label

    def time_step(self, ratio: float) -> float:
        """The time step of sigma / alpha, fractional; 0 below the schedule. Raises CapabilityError above it."""
        level = math.log(ratio)
        if level > self.log_ratios[-1] + _LEVEL_SLACK:
            raise CapabilityError(
                "the network was not trained on so much noise",
                got=f"sigma / alpha = {ratio:.4g}",
                allowed=f"up to {math.exp(self.log_ratios[-1]):.4g}",
                remedy="Lower the largest noise level of the process (t_max) or of the sampler.",
            )
        return float(np.interp(level, self.log_ratios, np.arange(len(self.log_ratios))))

    def _denoise_images(self, images: Tensor, alpha: float, sigma: float) -> Tensor:
        ratio, smallest = sigma / alpha, math.exp(self.log_ratios[0])
        step, held = self.time_step(ratio), max(ratio, smallest)
        a = 1.0 / math.sqrt(1.0 + held**2)
        b = held * a
        clean = images / alpha
        vp = a * clean
        steps = torch.full((len(images),), step, device=images.device, dtype=torch.float32)
        label = None if self.label is None else torch.full((len(images),), self.label, device=images.device)
        # a network that learned its variance too has that in its last channels
        output = self.network(vp, steps, label).sample[:, : images.shape[1]]
        denoised = {
            "epsilon": lambda: (vp - b * output) / a,
            "v_prediction": lambda: a * vp - b * output,
            "sample": lambda: output,
        }[self.prediction]()
        return denoised if ratio >= smallest else clean + (ratio / smallest) ** 2 * (denoised - clean)


def _places(folder: Path) -> tuple[Path, Path]:
    """The folder of the network and the scheduler's file, of a network's folder or a pipeline's."""
    if not (folder / _CONFIG).is_file() and (folder / "unet").is_dir():
        return folder / "unet", folder / "scheduler" / _SCHEDULER
    return folder, folder / _SCHEDULER


def _find(folder: Path) -> tuple[Path, Path]:
    unet, scheduler = _places(folder)
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (unet / name).is_file()]
    if missing == [_WEIGHTS] and (unet / _PICKLE).is_file():
        raise DataError(
            f"{_PICKLE} is a pickle, which can run code when it is read: it was not opened",
            got=str(unet),
            allowed=_WEIGHTS,
            remedy="Where you trust it, convert it: UNet2DModel.from_pretrained(folder, use_safetensors=False)"
            ".save_pretrained(folder, safe_serialization=True).",
        )
    if missing:
        raise DataError(
            f"no diffusers network there: {' and '.join(missing)} not found",
            got=str(unet),
            allowed=f"a folder with {_CONFIG}, {_WEIGHTS} and {_SCHEDULER}, as save_pretrained writes it",
            remedy="Put those files there, or set score.folder; nothing is downloaded, and a relative path starts at "
            "the working directory.",
        )
    return unet, scheduler


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise DataError("not a mapping", got=type(content).__name__, where=str(path))
    return content


def _check(
    config: dict[str, Any], options: dict[str, Any], shape: tuple[int, int, int], label: int | None, folder: Path
) -> None:
    """Refuse what this adapter would compute wrongly."""
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise CapabilityError("a network of another class", got=kind, allowed="UNet2DModel", where=str(folder))
    if config.get("time_embedding_type", "positional") != "positional":
        raise CapabilityError(
            "a network that is not conditioned on the steps of a schedule",
            got=f"time_embedding_type {config['time_embedding_type']}",
            allowed="positional",
            where=str(folder),
        )
    side = config.get("sample_size")
    sides = [side, side] if isinstance(side, int) else side
    if config.get("in_channels", 3) != shape[0] or (sides is not None and list(sides) != list(shape[1:])):
        raise CapabilityError(
            "the network was trained on images of another shape",
            got=f"{config.get('in_channels', 3)} channels, side {side}",
            allowed=f"{shape[0]} channels of {shape[1]} x {shape[2]} pixels, as the data set has",
            where=str(folder),
        )
    if options.get("prediction_type", "epsilon") not in _PREDICTIONS:
        raise CapabilityError("unknown prediction", got=options["prediction_type"], allowed=", ".join(_PREDICTIONS))
    classes = config.get("num_class_embeds")
    conditional = classes is not None or config.get("class_embed_type") is not None
    if conditional != (label is not None) or (label is not None and classes is not None and label >= classes):
        raise ParameterError(
            "a class-conditional network needs a label, another takes none"
            if conditional != (label is not None)
            else "no such class",
            got=f"label {label}",
            allowed=(f"0 to {classes - 1}" if classes else "a class") if conditional else "null",
            where=str(folder),
        )


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise CapabilityError(
            "score 'diffusers_unet' needs diffusers", remedy="pip install 'kfpbench[diffusers]'"
        ) from error
    return diffusers


def _build(config: dict[str, Any], where: Path) -> nn.Module:
    """The untrained network; diffusers' own loader is not used, since it may fetch files and reads other formats."""
    known = {key: value for key, value in config.items() if key != "quantization_config"}
    try:
        network: nn.Module = _diffusers().UNet2DModel.from_config(known)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"diffusers cannot build a network from it: {error}", where=str(where)) from error
    return network


def _log_ratios(options: dict[str, Any], where: Path) -> np.ndarray:
    """log(sigma / alpha) (T,) of the training schedule, in float64 from its betas; a last level of infinite noise is
    left out.
    """
    known = {key: value for key, value in options.items() if not key.startswith("_")}
    try:
        betas = _diffusers().DDPMScheduler.from_config(known).betas
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"no schedule can be made from it: {error}", where=str(where)) from error
    remaining = torch.cumprod(1.0 - betas.double(), dim=0).numpy()  # alpha^2
    remaining = remaining[remaining > 0.0]
    ratios = 0.5 * (np.log1p(-remaining) - np.log(remaining))
    if len(ratios) < 2 or not np.all(np.diff(ratios) > 0):
        raise DataError("the noise levels of the schedule do not increase", where=str(where))
    return ratios


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of today's attention layers."""
    pattern = re.compile(rf"(attentions\.\d+)\.({'|'.join(_OLD_NAMES)})\.")
    return {pattern.sub(lambda m: f"{m[1]}.{_OLD_NAMES[m[2]]}.", name): value for name, value in weights.items()}
