"""Data sets: rows of real vectors with fixed splits."""
