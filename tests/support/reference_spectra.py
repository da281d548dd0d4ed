"""Spectra of diffusions by methods that share nothing with the package's own: finite volumes, and polynomials.

Every function takes a reference problem (``kfpbench.data.reference_problem``) and uses its ``potential`` or ``drift``,
and its ``diffusion``, alone.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh


def half_width(problem, level: float) -> float:
    """A w such that the density at -w and w, and so outside, is below e^-level of its maximum on the first axis."""
    x = np.zeros((40_001, problem.dimension))
    x[:, 0] = np.linspace(-20, 20, len(x))
    rise = problem.potential(x)
    inside = x[(rise - rise.min()) / problem.diffusion < level, 0]
    assert np.abs(inside).max() < 19
    return float(np.abs(inside).max() + 1e-3)


def finite_volume_line(problem, count: int, cells: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` eigenvalues in one dimension, 0 first, and a bound of their error, both (count,).

    Cells of width h, no flux through the ends, the flux through a face being D rho_face (u_right - u_left) / h. The
    symmetrised matrix is -B^T B with B bidiagonal, and bisection on the Golub-Kahan form of a bidiagonal matrix finds
    its singular values to high relative accuracy (Demmel and Kahan, SIAM J. Sci. Stat. Comput. 11:873, 1990), so tiny
    rates are not lost in the largest. Four grids, each twice as fine, are extrapolated in h^2 (Richardson).
    """
    width = half_width(problem, 90.0)
    table = [_line_eigenvalues(problem, count, width, cells * 2**k) for k in range(4)]
    columns = [table]
    for order in range(1, len(table)):
        last = columns[-1]
        columns.append([(4**order * fine - coarse) / (4**order - 1) for coarse, fine in itertools.pairwise(last)])
    return columns[-1][0], np.abs(columns[-1][0] - columns[-2][1])


def _line_eigenvalues(problem, count: int, width: float, cells: int) -> np.ndarray:
    h = 2 * width / cells
    centres = -width + h * (np.arange(cells) + 0.5)
    faces = -width + h * np.arange(1, cells)
    at_centres, at_faces = (problem.potential(x[:, None]) / (2 * problem.diffusion) for x in (centres, faces))
    interleaved = np.empty(2 * cells - 2)  # of B: sqrt(D rho_face / rho_cell) / h, left and right of each face
    interleaved[0::2] = np.exp(at_centres[:-1] - at_faces)
    interleaved[1::2] = np.exp(at_centres[1:] - at_faces)
    singular = linalg.eigh_tridiagonal(
        np.zeros(2 * cells - 1),
        np.sqrt(problem.diffusion) / h * interleaved,
        eigvals_only=True,
        select="i",
        select_range=(cells, cells + count - 2),  # the positive ones, ascending
        lapack_driver="stebz",
        tol=1e-300,
    )
    return np.concatenate([[0.0], -(singular**2)])


def finite_volume_plane(problem, count: int, cells: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` eigenvalues in the plane, 0 first, and a bound of their error: squares, no use of a product.

    Three grids, each twice as fine, are extrapolated in h^2.
    """
    width = half_width(problem, 40.0)
    first, second, third = (_plane_eigenvalues(problem, count, width, cells * 2**k) for k in range(3))
    coarse, fine = (4 * second - first) / 3, (4 * third - second) / 3
    best = (16 * fine - coarse) / 15
    return best, np.abs(best - fine)


def _plane_eigenvalues(problem, count: int, width: float, cells: int) -> np.ndarray:
    h = 2 * width / cells
    centres = -width + h * (np.arange(cells) + 0.5)
    plane = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    index = np.arange(cells**2).reshape(cells, cells)
    height = problem.potential(plane) / (2 * problem.diffusion)
    scale = problem.diffusion / h**2
    matrix = sparse.csr_array((cells**2, cells**2))
    for a, b in ((index[:-1].ravel(), index[1:].ravel()), (index[:, :-1].ravel(), index[:, 1:].ravel())):
        face = problem.potential((plane[a] + plane[b]) / 2) / problem.diffusion
        coupling = scale * np.exp(height[a] + height[b] - face)
        loss_a, loss_b = scale * np.exp(2 * height[a] - face), scale * np.exp(2 * height[b] - face)
        rows = np.concatenate([a, b, a, b])
        columns = np.concatenate([b, a, a, b])
        entries = np.concatenate([coupling, coupling, -loss_a, -loss_b])
        matrix = matrix + sparse.csr_array((entries, (rows, columns)), shape=matrix.shape)
    start = np.random.default_rng(0).standard_normal(cells**2)
    values = eigsh(matrix.tocsc(), k=count, sigma=0.05, ncv=6 * count, v0=start, return_eigenvectors=False)
    return np.sort(values)[::-1]


def polynomial_eigenvalues(problem, degree: int) -> np.ndarray:
    """The eigenvalues of L on the polynomials up to ``degree``, which a linear drift leaves invariant; complex.

    L of every monomial, from its analytic derivatives, at random points is fitted by monomials: no error but rounding.
    """
    d = problem.dimension
    powers = np.array([n for n in itertools.product(range(degree + 1), repeat=d) if sum(n) <= degree])  # (P, d)
    x = np.random.default_rng(0).uniform(-1, 1, (4 * len(powers), d))
    diffusion = problem.diffusion * np.eye(d) if np.isscalar(problem.diffusion) else problem.diffusion
    unit = np.eye(d, dtype=int)

    def monomials(lowered: np.ndarray) -> np.ndarray:
        return np.prod(x[:, None, :] ** np.maximum(lowered, 0), axis=2)  # (n, P); a factor 0 stands before what is lost

    image = np.zeros((len(x), len(powers)))
    drift = problem.drift(x)
    for i in range(d):
        image += drift[:, i, None] * powers[:, i] * monomials(powers - unit[i])
        for j in range(d):
            factor = powers[:, i] * (powers[:, j] - (i == j))
            image += diffusion[i, j] * factor * monomials(powers - unit[i] - unit[j])
    coefficients, *_ = np.linalg.lstsq(monomials(powers), image)
    assert np.abs(monomials(powers) @ coefficients - image).max() < 1e-9  # the space is invariant
    return np.linalg.eigvals(coefficients)
