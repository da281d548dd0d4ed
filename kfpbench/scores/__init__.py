"""Scores: the denoiser E[x_0 | x_t] of a data set, exact or learned."""
