"""What people do with a memory: remember, recall, retrieve, forget, export."""
