"""Dense eigensolver: LAPACK on the generator projected to the principal functions of all centres."""

from __future__ import annotations

from kfpbench.eigensolvers.eigenpairs import Eigenpairs
from kfpbench.eigensolvers.principal import principal_of_gram, principal_of_sections
from kfpbench.eigensolvers.projection import projected_eigenpairs
from kfpbench.eigensolvers.regularised import Regularised
from kfpbench.operators.pencil import GalerkinPencil
from kfpbench.protocols import Backend, Kernel


class DenseEigensolver(Regularised):
    """Psi v = lambda (K + gamma N I) v by LAPACK, the constant function appended; centres = points, or others.

    With centres = points, the eigenvectors of the Gram matrix itself give the principal functions, which keeps its
    condition number instead of squaring it; with other centres singular values do. A reversible generator gives a
    symmetric problem and real values. Parameters: see Regularised.

    Cost O(N^3) time and O(N^2) memory; with M other centres O(N M^2 + M^3) and O(N M). Source: Klus, Nueske, Hamzi,
    "Kernel-Based Approximation of the Koopman Generator and Schroedinger Operator", Entropy 22(7):722 (2020), sec. 3.
    Raises CapabilityError for a kernel too rough for the operator, NumericalError for a kernel that is constant or not
    finite on the points, or when LAPACK fails.
    """

    def solve(self, pencil: GalerkinPencil, kernel: Kernel, backend: Backend, n_eigs: int | None = None) -> Eigenpairs:
        """All eigenpairs of the projected generator; the kernel is fitted to the points first."""
        pencil.require_smooth(kernel)
        kernel, solver = kernel.fit(pencil.bulk), self.resolved(pencil)
        if pencil.centres is None:
            principal = principal_of_gram(kernel, backend, pencil.points, pencil.weights, solver)
        else:
            principal = principal_of_sections(kernel, backend, pencil.points, pencil.weights, pencil.centres, solver)
        return projected_eigenpairs(pencil, principal, self.ridge, {"kernel": kernel.describe()})

    def working_memory(self, points: int, dimension: int, n_eigs: int | None, itemsize: int, backend: Backend) -> int:
        """Bytes: Gram matrices and complex eigenvectors, at full rank."""
        return itemsize * (18 * points**2 + 8 * points * dimension)
