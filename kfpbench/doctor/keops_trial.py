"""Run as a program by the check of KeOps: compile one formula, compare with torch, print JSON as the last line.

A process of its own, because a broken compiler, cache or library can end a process or hold it for ever.
"""

from __future__ import annotations

import json
import sys
import time


def main(device: str) -> None:
    """Gram matrix of the RBF kernel times two columns, 200 x 300 points of the plane, float64, on ``device``."""
    import torch

    from kfpbench.errors import CapabilityError
    from kfpbench.kernels.rbf import RBF
    from kfpbench.operators.dense import DenseGram
    from kfpbench.operators.keops import KeopsGram

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=draw, dtype=torch.float64).to(device)
    centres = torch.randn(300, 2, generator=draw, dtype=torch.float64).to(device)
    right = torch.randn(300, 2, generator=draw, dtype=torch.float64).to(device)
    kernel = RBF(bandwidth=1.0)
    expected = DenseGram().gram(kernel, x, centres).matmul(right)
    begin = time.perf_counter()
    try:
        matrix = KeopsGram().gram(kernel, x, centres)
        first = matrix.matmul(right)
        compiled = time.perf_counter() - begin
        begin = time.perf_counter()
        matrix.matmul(right)
        result: dict[str, float | str] = {
            "error": float((first - expected).abs().max() / expected.abs().max()),
            "compile_seconds": compiled,
            "product_seconds": time.perf_counter() - begin,
        }
    except CapabilityError as error:
        result = {"failed": str(error)}
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
