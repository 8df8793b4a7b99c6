"""The memory over HTTP and WebSocket: the API that clients already speak, and a page."""
