"""Training runs of encoders, one typed function each."""
