"""Hand-made descriptors: encoders that need no training and no network."""
