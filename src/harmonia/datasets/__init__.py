"""Public datasets, one reader each: a folder in, a stream of records out."""
