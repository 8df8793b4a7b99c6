"""Examples: a demo, and the collection of media that it uses."""
