"""Time grids from t_max to t_min."""

from __future__ import annotations

import math
from typing import Literal, get_args

from kfpbench.errors import ParameterError
from kfpbench.protocols import Process

Schedule = Literal["edm", "log_snr", "time"]


def check_grid(where: str, steps: int, schedule: str) -> None:
    """Raise ParameterError for fewer than one step or an unknown schedule."""
    if steps < 1:
        raise ParameterError("steps must be at least 1", got=steps, where=where)
    if schedule not in get_args(Schedule):
        raise ParameterError("unknown schedule", got=schedule, allowed=", ".join(get_args(Schedule)), where=where)


def time_grid(process: Process, steps: int, schedule: Schedule) -> list[float]:
    """``steps`` + 1 decreasing times, the first t_max and the last t_min exactly.

    ``edm``: sigma/alpha = (a^(1/7) + s (b^(1/7) - a^(1/7)))^7, s uniform (Karras et al. 2022, eq. (5) with rho = 7);
    ``log_snr``: uniform in log(sigma/alpha); ``time``: uniform in t.
    """
    start, end = process.log_ratio(process.t_max), process.log_ratio(process.t_min)
    shares = [index / steps for index in range(1, steps)]
    if schedule == "time":
        inner = [process.t_max + share * (process.t_min - process.t_max) for share in shares]
    elif schedule == "log_snr":
        inner = [process.time_of(start + share * (end - start)) for share in shares]
    else:
        a, b = math.exp(start / 7.0), math.exp(end / 7.0)
        inner = [process.time_of(7.0 * math.log(a + share * (b - a))) for share in shares]
    return [process.t_max, *inner, process.t_min]
