"""Denoising networks: the U-Net, its preconditioning, and the files that hold its weights."""
