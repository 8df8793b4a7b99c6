"""The opened memory: remember, recall, retrieve, forget, and what they are made of."""
