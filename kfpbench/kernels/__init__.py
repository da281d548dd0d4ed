"""Positive definite kernels with the derivatives that a generator needs."""
