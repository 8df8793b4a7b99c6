"""The endpoints, one module for each part of the API: ``router`` is what the app takes."""
