"""Spectral samplers: generation by linear combinations of eigenfunctions."""
