"""Generative adversarial networks: GAN, StyleGAN2-ADA, AttnGAN."""
