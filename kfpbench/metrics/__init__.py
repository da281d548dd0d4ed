"""Metrics: fidelity, diversity, memorisation."""
