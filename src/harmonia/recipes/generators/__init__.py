"""Training runs of generators, one typed function each."""
