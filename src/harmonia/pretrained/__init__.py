"""Pretrained models, one module for each family, loaded by hub name or local folder."""
