"""OpenAI's endpoints, one module for each part of its API."""
