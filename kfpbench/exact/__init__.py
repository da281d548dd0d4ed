"""Exact Wasserstein-2 errors of samplers, where the law of what they draw can be computed."""
