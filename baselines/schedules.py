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
        raise ParameterError("steps must be at least 1", got=steps, where=where)
    if schedule not in get_args(Schedule):
        raise ParameterError("unknown schedule", got=schedule, allowed=", ".join(get_args(Schedule)), where=where)
    if not 0.0 < rho < math.inf:
        raise ParameterError("rho out of range", got=rho, allowed="above 0", where=where)


def time_grid(process: Process, steps: int, schedule: Schedule, rho: float = 7.0) -> list[float]:
    """``steps`` + 1 decreasing times, the first t_max and the last t_min exactly.

    ``edm``: sigma/alpha = (a^(1/rho) + s (b^(1/rho) - a^(1/rho)))^rho, s uniform (Karras et al. 2022, eq. (5));
    ``log_snr``: uniform in log(sigma/alpha); ``time``: uniform in t.
    """
    start, end = process.log_ratio(process.t_max), process.log_ratio(process.t_min)
    shares = [index / steps for index in range(1, steps)]
    if schedule == "time":
        inner = [process.t_max + share * (process.t_min - process.t_max) for share in shares]
    elif schedule == "log_snr":
        inner = [process.time_of(start + share * (end - start)) for share in shares]
    else:
        a, b = math.exp(start / rho), math.exp(end / rho)
        inner = [process.time_of(rho * math.log(a + share * (b - a))) for share in shares]
    return [process.t_max, *inner, process.t_min]
