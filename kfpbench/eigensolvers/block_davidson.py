"""Block Davidson iteration with harmonic extraction: a few eigenvectors of a large pencil from products with blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kfpbench.eigensolvers.lapack_threads import threads_for
from kfpbench.eigensolvers.nystrom_preconditioner import nearest, real_columns
from kfpbench.errors import NumericalError

_DEPENDENT = 1e-10  # a new direction smaller than this beside what it was made of is rounding
_KEPT = 2  # Ritz vectors kept at a restart, per pair wanted
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RitzVectors:
    """Approximate A u = lambda B u, nearest to the shift first: values (K,) and vectors (N, K) complex.

    ``residuals`` (K,): ||A u - lambda B u|| / (max(|lambda|, sigma) ||B u||).
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    iterations: int

    @property
    def columns(self) -> Tensor:
        """Real columns of the same span."""
        return real_columns(self.values, self.vectors)

    def take(self, indices: list[int]) -> RitzVectors:
        """Some of them, in the order given."""
        return RitzVectors(self.values[indices], self.vectors[:, indices], self.residuals[indices], self.iterations)


def davidson(
    generator: Product,
    mass: Product,
    solve: Product,
    start: Tensor,
    shift: float,
    count: int,
    guard: int,
    tolerance: float,
    max_iterations: int,
    max_basis: int,
) -> RitzVectors:
    """The ``count`` + ``guard`` eigenvectors of A u = lambda B u nearest to a real shift.

    Every iteration adds t = M^(-1) (A u - theta B u) for the pairs that have not converged, ``solve`` being M^(-1) with
    M ~ A - sigma B. With M exact that is shift-invert block Krylov; an approximate M needs no inner iteration, which is
    what counts when a pass over the kernel is the cost: two a step, with all new columns. The basis V is kept so that
    W = (A - sigma B) V is orthonormal, which stays well conditioned in directions where B all but vanishes, and the
    eigenvalues nu of W^T B V, theta = sigma + 1 / nu, are the Ritz values of the resolvent: harmonic ones, among which
    an inaccurate value cannot hide near the shift. Convergence: ||A u - theta B u|| <= tolerance max(|theta|, sigma)
    ||B u|| for the first ``count``; ``guard`` more are carried along. Beyond ``max_basis`` columns it restarts from
    twice as many harmonic Ritz vectors as are wanted, without a product.

    Memory 3 N max_basis. Sources: Morgan, "Computing interior eigenvalues of large matrices", Linear Algebra Appl.
    154:289 (1991), for the extraction; Morgan and Scott, SIAM J. Sci. Stat. Comput. 7:817 (1986), for the iteration.
    """
    wanted = min(count + guard, len(start))
    basis = images = masses = start[:, :0]
    new, iterations = start, 0
    while True:
        new_masses = mass(new)
        new_images = generator(new) - shift * new_masses
        scale = new_images.norm(dim=0)
        for _ in range(2):
            overlap = images.T @ new_images
            new_images = new_images - images @ overlap
            new, new_masses = new - basis @ overlap, new_masses - masses @ overlap
        new_images, change = _orthonormal(new_images, scale)
        basis = torch.cat([basis, new @ change], dim=1)
        masses = torch.cat([masses, new_masses @ change], dim=1)
        images = torch.cat([images, new_images], dim=1)
        try:
            with threads_for(basis.shape[1]):
                inverse_values, vectors = torch.linalg.eig(images.T @ masses)
        except torch.linalg.LinAlgError as error:
            raise NumericalError(f"the resolvent in the search space could not be diagonalised: {error}") from error
        order = _largest(inverse_values, wanted)
        nu, z = inverse_values[order], vectors[:, order]
        values = shift + 1.0 / nu
        mass_vectors = _times(masses, z)
        defect = _times(images, z) - mass_vectors / nu
        residuals = defect.norm(dim=0) / (values.abs().clamp_min(shift) * mass_vectors.norm(dim=0))
        open_pairs = (~(residuals <= tolerance)).nonzero()[:, 0]
        done = len(order) >= min(count, wanted) and not bool((open_pairs < count).any())
        if done or iterations >= max_iterations or (iterations and change.shape[1] == 0):
            return RitzVectors(values, _times(basis, z), residuals, iterations)
        iterations += 1
        new = solve(real_columns(nu[open_pairs], defect[:, open_pairs]))
        if basis.shape[1] + new.shape[1] > max_basis:
            order = _largest(inverse_values, _KEPT * wanted)
            kept = real_columns(inverse_values[order], vectors[:, order])
            kept = torch.linalg.qr(kept)[0]  # of orthonormal columns W: W kept is orthonormal
            basis, images, masses = basis @ kept, images @ kept, masses @ kept


def matched(values: Tensor, candidates: Tensor) -> list[int]:
    """For each value the nearest candidate not yet taken, conjugates taking conjugates, as long as there are any."""
    free = dict(enumerate(complex(candidate) for candidate in candidates.tolist()))
    chosen: list[int] = []
    for value in values.tolist()[: len(candidates)]:
        index = min(free, key=lambda k: abs(free[k] - value))
        chosen.append(index)
        del free[index]
    return chosen


def _largest(values: Tensor, count: int) -> list[int]:
    """Indices of the values of largest size: nearest to the shift, as 1 / nu is nearest to 0."""
    return nearest(1.0 / values, 0.0, count)


def _times(columns: Tensor, coordinates: Tensor) -> Tensor:
    """Real columns (n, m) times complex coordinates (m, K)."""
    return torch.complex(columns @ coordinates.real, columns @ coordinates.imag)


def _orthonormal(vectors: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns V C of the span of V (N, p), and C (p, p'); ``scale`` (p,): what rounding is relative to."""
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    left, singular, right = torch.linalg.svd(vectors / scale, full_matrices=False)
    sound = singular > _DEPENDENT * max(1.0, float(singular[0]) if len(singular) else 0.0)
    return left[:, sound], right.T[:, sound] / singular[sound] / scale[:, None]
