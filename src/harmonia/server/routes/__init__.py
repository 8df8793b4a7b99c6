"""The native endpoints, one module per part of the API, each with a ``router``."""
