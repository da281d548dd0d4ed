"""Stand-in components, registered from a local plugin file, and helpers that load suites written in tests."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.errors import SuiteError
from kfpbench.suite import components
from kfpbench.suite.load import load_suite
from kfpbench.suite.loaded import Suite

STAND_INS = '''
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

import kfpbench
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.protocols import Kernel

if TYPE_CHECKING:  # as most components import the protocols
    from kfpbench.protocols import FeatureExtractor, SamplerPlugin
    from somewhere_not_installed import Eigensolver, GramBackend

CONSTRUCTED = []


class StandIn:
    """No component is run here: whatever a protocol asks for, it is said to be there."""

    def __getattr__(self, name):
        raise AttributeError(name)


@dataclass(frozen=True)
class GeneratorOptions:
    eta: Annotated[float, Field(ge=0)] = 1
    frame: Literal["raw", "whitened"] = "raw"

    def __post_init__(self):
        if self.eta > 10:
            raise ParameterError("eta is too large", got=self.eta, allowed="up to 10", remedy="Lower it.")


@kfpbench.register("datasets", "toy")
class Toy(StandIn):
    """Points.

    More about them.
    """

    def __init__(self, size: Annotated[int, Field(gt=0)] = 10, folder: Path | None = None):
        self.size, self.folder = size, folder
        CONSTRUCTED.append(self)


@kfpbench.register("datasets", "ring")
class Ring(StandIn):
    def __init__(self, modes: int = 8):
        self.modes = modes


@kfpbench.register("datasets", "diffusion")
class Diffusion(StandIn):  # a reference problem: it has dynamics of its own
    def __init__(self, beta: float = 1.0):
        self.beta = beta

    def exact_eigenvalues(self, count):
        return [-self.beta * k for k in range(count)]


@kfpbench.register("scores", "exact")
class Exact(StandIn):
    pass


@kfpbench.register("scores", "learned")
class Learned(StandIn):
    def __init__(self, file: str):
        self.file = file


@kfpbench.register("processes", "bridge")
class Bridge(StandIn):
    def __init__(self, t_max: Annotated[float, Field(gt=0)] = 1):
        self.t_max = t_max


@kfpbench.register("kernels", "gauss")
class Gauss(StandIn):
    def __init__(self, bandwidth: Annotated[float, Field(gt=0)] | Literal["median"] = "median"):
        self.bandwidth = bandwidth


@kfpbench.register("kernels", "rough")
@dataclass
class Rough(StandIn):
    nu: float = 0.5
    scales: tuple[float, ...] = field(default_factory=lambda: (1, 2))


@kfpbench.register("kernels", "summed")
class Summed(StandIn):
    def __init__(self, kernels: list[Kernel]):
        self.kernels = kernels


@kfpbench.register("eigensolvers", "plain")
class Plain(StandIn):
    def __init__(self, tolerance: float = 1e-8):
        self.tolerance = tolerance


@kfpbench.register("backends", "matrix")
class Matrix(StandIn):
    def __init__(self, tile: int = 64):
        self.tile = tile


@kfpbench.register("features", "raw_rows")
class RawRows(StandIn):
    pass


@kfpbench.register("features", "projected")
class Projected(StandIn):
    def __init__(self, components: int = 2):
        self.components = components


@kfpbench.register("metrics", "distance")
class Distance(StandIn):
    def __init__(self, features: FeatureExtractor | str = "raw_rows", weights: list[float] = (1, 2)):
        self.features, self.weights = features, weights


@kfpbench.register("samplers", "steps")
class Steps(StandIn):
    def __init__(self, steps: Annotated[int, Field(ge=1, le=1000)], corrector: bool = False):
        self.steps, self.corrector = steps, corrector


@kfpbench.register("samplers", "spectral")
class Spectral(StandIn):
    def __init__(
        self,
        kernel: Kernel | str = "gauss",
        operator: GeneratorOptions = GeneratorOptions(),
        eigensolver: Eigensolver | str = "plain",
        backend: GramBackend | str = "matrix",
        rank: int = 4,
        cutoff: float | None = None,
        refiner: SamplerPlugin | None = None,
    ):
        if rank > 100:
            raise ParameterError("rank is larger than anyone needs", got=rank, allowed="up to 100")
        if rank == 13:
            raise RuntimeError("thirteen")
        if rank == 99:
            raise CapabilityError("not with this kernel")
        self.kernel, self.operator, self.eigensolver, self.backend = kernel, operator, eigensolver, backend
        self.rank, self.cutoff, self.refiner = rank, cutoff, refiner


class EigenTask:  # stands in for the class behind `spectrum:`
    def __init__(
        self,
        kernel: Kernel | str = "gauss",
        operator: GeneratorOptions = GeneratorOptions(),
        points: Annotated[int, Field(ge=2)] = 1000,
        n_eigs: int = 6,
        at: float | None = None,
    ):
        self.kernel, self.points, self.n_eigs, self.at = kernel, points, n_eigs, at
'''

BASE = """\
name: demo
data: {name: toy, size: 20}
score: exact
process: {name: bridge}
samplers:
  - name: spectral
    operator:
      eta: 0.5
  - {name: steps, label: heun, steps: 5}
metrics: [distance]
"""


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], registry.Entry]:
    path = tmp_path_factory.mktemp("plugins") / "stand_ins.py"
    path.write_text(STAND_INS)
    before = dict(registry._local)
    registry.load_plugin_file(path)
    entries = {key: entry for key, entry in registry._local.items() if key not in before}
    registry._local.clear()
    registry._local.update(before)
    return entries


@pytest.fixture(autouse=True)
def _registered(stand_ins: dict[tuple[str, str], registry.Entry], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(registry._local)
    registry._local.update(stand_ins)
    module = stand_ins["samplers", "spectral"].load().__module__
    monkeypatch.setattr(components, "SPECTRUM_TARGET", f"{module}:EigenTask")
    yield
    registry._local.clear()
    registry._local.update(before)


@pytest.fixture
def base() -> str:
    return BASE


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a suite (dedented) into the test's folder."""

    def write_suite(text: str, name: str = "suite.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_suite


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., Suite]:
    """Load a suite from text."""

    def load_text(text: str, **options: object) -> Suite:
        return load_suite(write(text), **options)  # type: ignore[arg-type]

    return load_text


@pytest.fixture
def refused(load: Callable[..., Suite], tmp_path: Path) -> Callable[..., list[str]]:
    """The problems for which a suite is refused, one text each, without the test's folder in them."""

    def problems(text: str, **options: object) -> list[str]:
        with pytest.raises(SuiteError) as caught:
            load(text, **options)
        errors = getattr(caught.value, "problems", None) or [caught.value]
        return [str(error).replace(f"{tmp_path}/", "") for error in errors]

    return problems
