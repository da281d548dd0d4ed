"""Forward SDEs of diffusion models."""
