"""Generators that learn from a critic: GAN, StyleGAN2-ADA, AttnGAN."""
