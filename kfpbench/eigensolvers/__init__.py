"""Solvers of the Galerkin eigenproblem."""
