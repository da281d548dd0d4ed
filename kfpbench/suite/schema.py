"""The suite as a pydantic model: everything but the parameters of components, which their signatures give."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from kfpbench.suite.base_model import LABEL, SLUG, StrictModel
from kfpbench.suite.study_schema import StudyBlock

SCHEMA_VERSION = 1

LABEL_PATTERN = re.compile(LABEL)
DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?)$"

Block = dict[str, Any]
Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(pattern=LABEL)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Budget(StrictModel):
    """What one cell may use."""

    seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="Wall-clock seconds of a cell.")
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(None, description="Memory of a cell in GiB.")


class Settings(StrictModel):
    """The settings that may differ from cell to cell."""

    seed: int = Field(0, ge=0, lt=2**63, description="Repeat r uses seed + r.")
    device: str = Field("auto", pattern=DEVICE, description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["float32", "float64"] = "float32"
    n_samples: Count = Field(1000, description="Samples drawn, and reference rows, in every comparison.")
    batch_size: Count = Field(250, description="Batch at which throughput is timed.")
    latency_repeats: Count = Field(10, description="Timed samplings of one image.")
    budget: Budget = Budget(seconds=None, memory_gib=None)


class Timing(StrictModel):
    """How the samplers of the suite are timed in turns, after a run and by `kfpbench time`. It changes no cell."""

    batches: Annotated[list[Count], Field(min_length=1)] = Field(
        [1, 16, 250], description="Batch sizes: latency at 1, throughput at the others."
    )
    rounds: Count = Field(12, description="Rounds at each batch size; a round visits every sampler twice.")
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        120.0, description="Limit of the rounds of a batch size (at least 3 are made); null: none."
    )
    anchor: Annotated[str, Field(pattern=LABEL)] | None = Field(
        None,
        description="Label of the sampler that the others are compared with; by default the first. Where not all fit "
        "into memory together, each of the others is timed in turns with it.",
    )


class DataKeys(StrictModel):
    """The keys that `data` has beside the parameters of its data set."""

    reference: Literal["test", "validation"] = Field("test", description="The split to compare with.")
    train_size: Count | None = Field(None, description="Use only the first rows; null: all.")


class LabelKey(StrictModel):
    """The key that a sampler or a spectrum has beside its parameters."""

    label: Label | None = Field(
        None,
        description="The name of this entry in grids, tables and figures; by default the component's name.",
    )


class ClaimBlock(StrictModel):
    """Which samplers of the suite, by label, answer the paper's sentence, and the thresholds (see docs/claim.md)."""

    spectral: Label | Annotated[list[Label], Field(min_length=1)] = Field(
        description="The spectral sampler, or several: each gets its own answer."
    )
    reference: Label = Field(description="The slow sampler, with the same score: Euler-Maruyama with 1000 steps.")
    few_step: list[Label] = Field(min_length=1, description="Few-step solvers; all cells of a label take part.")
    control: Label | None = Field(None, description="A sampler without any network evaluation, such as gaussian.")
    seconds: Annotated[float, Field(gt=0)] = Field(0.29, description="Seconds per image, at most, at batch 1.")
    faster: Annotated[float, Field(ge=1)] = Field(1.0, description="A speed-up is a ratio of times above this.")
    slight: Share = Field(0.1, description="A loss of diversity up to this share of the reference's is slight.")
    copied: Share = Field(0.05, description="The share of samples as near to the training set as copies, at most.")

    @property
    def spectral_labels(self) -> list[str]:
        """``spectral`` as a list."""
        return [self.spectral] if isinstance(self.spectral, str) else list(self.spectral)


class SuiteModel(Settings):
    """One suite, schema version 1. Component blocks are mappings with a `name`; see components.py for the
    rest."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=SLUG, description="Names the run folder.")
    description: str = ""
    repeats: Count = Field(1, description="Repeat r uses seed + r.")
    data: Block
    score: Block | None = Field(None, description="Null, with process: a spectrum of the data set's own dynamics.")
    process: Block | None = Field(None, description="Null, with score: a spectrum of the data set's own dynamics.")
    samplers: list[Block] = Field([])
    spectrum: list[Block] = Field([])
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    metrics: list[Block] = Field([])
    timing: Timing | None = Field(
        None,
        description="Time the samplers in turns after the run; null: not then.",
    )
    cache: bool = Field(True, description="Reuse results of earlier runs that cost much, and keep those of this one.")
    isolate: bool = Field(
        False, description="A process of its own for every cell: none can take the others down. Costs seconds a cell."
    )
    plugins: list[str] = Field([])
    include: list[str] = Field([])
    claim: ClaimBlock | None = Field(None, description="Makes the run answer the paper's sentence in a claim card.")
    study: StudyBlock | None = Field(None, description="What `kfpbench study` searches; see docs/studies.md.")


COMPONENT_FIELDS = {"data": "datasets", "score": "scores", "process": "processes"}
COMPONENT_LISTS = {"samplers": "samplers", "spectrum": "spectrum", "metrics": "metrics"}
NOT_AXES = (
    "schema_version",
    "name",
    "description",
    "repeats",
    "grid",
    "plugins",
    "include",
    "claim",
    "timing",
    "cache",
    "isolate",
    "study",
)
DYNAMICS = ("score", "process")  # of the reverse process; null for a reference problem, which has its own
AXIS_FIELDS = (*COMPONENT_FIELDS, "metrics", *Settings.model_fields)
NESTED_KEYS = {
    "budget": tuple(Budget.model_fields),
    "claim": tuple(ClaimBlock.model_fields),
    "timing": tuple(Timing.model_fields),
    "study": tuple(StudyBlock.model_fields),
}
