"""The small interfaces that every component keeps; a plugin is one class that satisfies one of them.

Every component is a class whose constructor takes its parameters by keyword with type annotations; the suite schema is
read off that signature (``Annotated[float, Field(gt=0)]`` states a bound). Constructors are cheap: data, networks and
factorisations come in ``load``, ``bind`` and ``fit``. The interface of eigensolvers stands with what they return, in
``kfpbench.eigensolvers.eigenpairs``. Shapes: n samples, N fitted points, M centres, d coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from kfpbench.data.dataset import Dataset, Reference
    from kfpbench.noise import NoiseStream
    from kfpbench.operators.diffusion import Diffusion

KINDS = (
    "datasets",
    "processes",
    "scores",
    "kernels",
    "backends",
    "eigensolvers",
    "samplers",
    "features",
    "metrics",
)


@dataclass(frozen=True)
class ProblemSize:
    """The numbers from which a component predicts its working memory: N training rows, d coordinates, batch, bytes."""

    train: int
    dimension: int
    batch: int
    itemsize: int


@runtime_checkable
class DatasetPlugin(Protocol):
    """Loads rows. ``size`` answers (training rows, dimension) without reading a file, for plans and dry runs.

    ``load`` splits; against ``reference`` test the validation rows are training rows too, which ``size`` counts.
    """

    def load(self) -> Dataset: ...

    def size(self, reference: Reference = "validation") -> tuple[int, int]: ...


@runtime_checkable
class Process(Protocol):
    """A linear forward SDE dx = f(t) x dt + g(t) dw on [t_min, t_max] with marginals x_t = alpha x_0 + sigma eps.

    All times are scalars; ``log_ratio`` is log(sigma_t / alpha_t), strictly increasing, ``time_of`` its inverse.
    """

    t_min: float
    t_max: float

    def alpha(self, t: float) -> float: ...

    def sigma(self, t: float) -> float: ...

    def drift_rate(self, t: float) -> float: ...

    def squared_diffusion(self, t: float) -> float: ...

    def log_ratio(self, t: float) -> float: ...

    def time_of(self, log_ratio: float) -> float: ...


@runtime_checkable
class BoundScore(Protocol):
    """A score on a device: E[x_0 | x_t = x] and grad log p_t, counting the rows it evaluates (the NFE, times n)."""

    evaluations: int

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor: ...

    def score(self, x: Tensor, alpha: float, sigma: float) -> Tensor: ...


@runtime_checkable
class ScorePlugin(Protocol):
    """Builds a score for a data set on a device; ``working_memory`` predicts the bytes that it holds and uses."""

    def bind(self, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> BoundScore: ...

    def working_memory(self, size: ProblemSize) -> int: ...


@runtime_checkable
class Kernel(Protocol):
    """A positive definite kernel k(x, y). ``fit`` resolves data-dependent parameters (a median bandwidth) on points
    (N, d) and returns a copy.

    ``smoothness`` is the number of continuous derivatives that every function of the RKHS has: for Matern-nu the
    largest integer below nu (3/2: 1, 5/2: 2), inf for analytic kernels; an operator with diffusion needs 2 in strong
    form, others need 1. A kernel says what it is in one of three ways: ``profile`` (RadialKernel), ``arguments`` and
    ``jet`` (kfpbench.kernels.jet.JetKernel), or its blocks (BlockKernel).
    """

    smoothness: float

    def fit(self, points: Tensor) -> Kernel: ...

    def describe(self) -> dict[str, Any]: ...


@runtime_checkable
class RadialKernel(Kernel, Protocol):
    """k(x, y) = h(|x - y|^2). ``profile`` returns h, h' and h'' (derivatives with respect to the squared distance),
    finite, at squared distances of any shape, 0 included; a kernel of smoothness 1 may leave out h''.

    Every derivative that a generator needs follows from them. Written with methods and operators alone
    (``(s * rate).exp()``), the formula serves symbolic backends too.
    """

    def profile(self, squared_distance: Any) -> tuple[Any, ...]: ...


@runtime_checkable
class BlockKernel(Kernel, Protocol):
    """A kernel without a formula: it computes its own blocks (n, M), of k and of its generator, for tiles of points.

    ``max_dim`` is the largest dimension in which it can do so for an operator with diffusion.
    """

    max_dim: int

    def block(self, x: Tensor, centres: Tensor) -> Tensor: ...

    def generator_block(self, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor: ...


@runtime_checkable
class GramOperator(Protocol):
    """A real matrix (n, M) that is known by its products; only ``to_dense`` builds it.

    ``rows`` gives some of its rows, (m,) indices -> (m, M); ``diagonal`` needs n = M.
    """

    shape: tuple[int, int]

    def matmul(self, right: Tensor) -> Tensor: ...

    def transpose_matmul(self, left: Tensor) -> Tensor: ...

    def rows(self, indices: Tensor) -> Tensor: ...

    def diagonal(self) -> Tensor: ...

    def to_dense(self) -> Tensor: ...


@runtime_checkable
class Backend(Protocol):
    """Makes Gram operators of a fitted kernel: k(x_i, c_j), and (L k(., c_j))(x_i) of a generator.

    Shapes: x (n, d), centres (M, d), drift (n, d). ``lazy`` says that products never hold an n x M array;
    ``working_memory`` predicts the bytes that a product with (M, columns) takes besides its operands and result.
    """

    lazy: bool

    def gram(self, kernel: Kernel, x: Tensor, centres: Tensor) -> GramOperator: ...

    def generator_gram(
        self, kernel: Kernel, x: Tensor, centres: Tensor, drift: Tensor, diffusion: Diffusion
    ) -> GramOperator: ...

    def working_memory(self, n: int, centres: int, dimension: int, columns: int, itemsize: int) -> int: ...


@dataclass(frozen=True)
class Problem:
    """What a sampler is given to fit: the data, the process, the score, where to compute, and the seed of the fit."""

    dataset: Dataset
    process: Process
    score: BoundScore
    device: torch.device
    dtype: torch.dtype
    seed: int


@runtime_checkable
class FittedSampler(Protocol):
    """Draws x_0 for the sample indices of a noise stream: row i depends on (seed, index i) alone."""

    def sample(self, noise: NoiseStream) -> Tensor: ...

    def describe(self) -> dict[str, Any]: ...


@runtime_checkable
class FittedRefiner(FittedSampler, Protocol):
    """A fitted sampler that can also start from given rows: x (n, d) at its process's t_max -> x at t_min.

    ``integrate`` uses the draws 1, 2, ... of the stream; draw 0 is the start of ``sample``.
    """

    def integrate(self, x: Tensor, noise: NoiseStream) -> Tensor: ...


@runtime_checkable
class SamplerPlugin(Protocol):
    """Fits once (setup), then samples; ``working_memory`` predicts the bytes of both."""

    def fit(self, problem: Problem) -> FittedSampler: ...

    def working_memory(self, size: ProblemSize) -> int: ...


@dataclass(frozen=True)
class MetricInput:
    """What a metric is given. ``samples`` and ``reference`` hold the same number n of rows.

    Shapes: samples (n, d), reference (n, d), train (N, d), float32. ``reference_name`` names the split. ``sampler`` is
    what drew the samples and ``problem`` what it was fitted to, for metrics that look at the sampler itself; None where
    samples are all there is. A metric that cannot be taken raises CapabilityError: the cell keeps its other metrics and
    records the reason.
    """

    samples: NDArray[np.float32]
    reference: NDArray[np.float32]
    train: NDArray[np.float32]
    dataset: Dataset
    reference_name: str
    seed: int
    sampler: FittedSampler | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Measurement:
    """One number with its 95 % interval, the n it was computed from, and its unit ('' for none)."""

    metric: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class FeatureExtractor(Protocol):
    """Maps rows to features. ``fit`` sees training rows only and returns the fitted extractor."""

    version: str

    def fit(self, dataset: Dataset) -> FeatureExtractor: ...

    def transform(self, rows: NDArray[np.float32]) -> NDArray[np.float64]: ...


@runtime_checkable
class MetricPlugin(Protocol):
    """Compares samples with a reference; ``outputs`` names its metrics and says which direction is better."""

    outputs: dict[str, Literal["lower", "higher", "neither"]]

    def evaluate(self, data: MetricInput) -> list[Measurement]: ...
