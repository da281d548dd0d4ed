"""Comparison of cells: paired differences, fronts with their uncertainty, hypervolumes, main effects of axes."""
