"""Training of denoising networks: configuration, the loop, its resumable state, and the checkpoint it ends in."""
