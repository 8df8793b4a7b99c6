"""Diffusion and flow models, their samplers, guidance and distillation."""
