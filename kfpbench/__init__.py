"""kfpbench: benchmarks and ablations of kernel Fokker-Planck (operator-theoretic) diffusion sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfpbench.errors import KfpbenchError
from kfpbench.registry import register

if TYPE_CHECKING:
    from kfpbench.eigensolvers.estimate import estimate_spectrum
    from kfpbench.runner.execute import run
    from kfpbench.runner.executor_options import ExecutorOptions
    from kfpbench.store.run_folder import load_run
    from kfpbench.suite.load import load_suite

__version__ = "0.1.0"
__all__ = [
    "ExecutorOptions",
    "KfpbenchError",
    "__version__",
    "estimate_spectrum",
    "load_run",
    "load_suite",
    "register",
    "run",
]

_LAZY = {
    "ExecutorOptions": "kfpbench.runner.executor_options",
    "estimate_spectrum": "kfpbench.eigensolvers.estimate",
    "run": "kfpbench.runner.execute",
    "load_run": "kfpbench.store.run_folder",
    "load_suite": "kfpbench.suite.load",
}


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used, so that ``import kfpbench`` stays light (PEP 562)."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'kfpbench' has no attribute {name!r}")
