"""The endpoints that OpenAI's clients drive, on the same memory."""
