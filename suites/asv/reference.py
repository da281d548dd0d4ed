"""The reference problem of the eigenvalue errors: draws of an Ornstein-Uhlenbeck process, eigenvalues 0, -1, -2, ..."""

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import OrnsteinUhlenbeck
from kfpbench.errors import NumericalError

EXACT = -1.0  # the leading non-zero eigenvalue
CONSTANT = 1e-3  # a value closer to 0 belongs to the constant function


def solve(points, dimension, seed=0, **components):
    """The spectrum that ``estimate_spectrum`` finds with these components, from N draws in d dimensions."""
    problem = OrnsteinUhlenbeck(dimension=dimension)
    x = problem.sample(points, seed=seed)
    return estimate_spectrum(x, problem.drift(x), problem.diffusion, **components)


def leading_error(spectrum):
    """|lambda_1 + 1| of the slowest sound mode besides the constant function.

    Raises NumericalError where there is none: asv counts that as a failure, where NaN would count as skipped.
    """
    sound = [value for value, flag in zip(spectrum.values, spectrum.flags, strict=True) if not flag]
    decaying = [value for value in sound if abs(value) > CONSTANT]
    if not decaying:
        raise NumericalError("no sound mode besides the constant function", got=list(spectrum.values))
    return float(abs(decaying[0] - EXACT))
