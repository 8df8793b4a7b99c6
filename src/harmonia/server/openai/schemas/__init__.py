"""What OpenAI's endpoints take and give."""
