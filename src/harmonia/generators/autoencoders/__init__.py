"""Autoencoders: plain, denoising, variational and vector-quantised."""
