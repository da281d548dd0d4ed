"""Time grids from t_max to t_min."""

from __future__ import annotations

import math
from typing import Literal, get_args

from kfpbench.errors import ParameterError
from kfpbench.protocols import Process

Schedule = Literal["edm", "log_snr", "time"]


def check_grid(where: str, steps: int, schedule: str, rho: float = 7.0) -> None:
    """Raise ParameterError for fewer than one step, an unknown schedule, or a rho that is not positive."""
    if steps < 1:
        raise ParameterError("steps must be at least 1", got=steps, allowed="1 and more", where=where)
    if schedule not in get_args(Schedule):
        raise ParameterError("unknown schedule", got=schedule, allowed=", ".join(get_args(Schedule)), where=where)
    if not 0.0 < rho < math.inf:
        raise ParameterError("rho out of range", got=rho, allowed="above 0", where=where)


def time_grid(process: Process, steps: int, schedule: Schedule, rho: float = 7.0) -> list[float]:
    """``steps`` + 1 decreasing times, the first t_max and the last t_min exactly.

    ``edm``: sigma/alpha = (a^(1/rho) + s (b^(1/rho) - a^(1/rho)))^rho, s uniform (Karras et al. 2022, eq. (5));
    ``log_snr``: uniform in log(sigma/alpha), which ``edm`` tends to for a large rho; ``time``: uniform in t.
    """
    start, end = process.log_ratio(process.t_max), process.log_ratio(process.t_min)
    shares = [index / steps for index in range(1, steps)]
    if schedule == "time":
        inner = [process.t_max + share * (process.t_min - process.t_max) for share in shares]
    elif schedule == "log_snr":
        inner = [process.time_of(start + share * (end - start)) for share in shares]
    else:
        # log(sigma/alpha) = log(a) + rho log(1 + s ((b/a)^(1/rho) - 1)): no power overflows, no difference cancels
        change = math.expm1((end - start) / rho)
        inner = [process.time_of(start + rho * math.log1p(share * change)) for share in shares]
    return [process.t_max, *inner, process.t_min]
