"""Generators of discrete tokens: autoregressive, masked, DALL-E."""
