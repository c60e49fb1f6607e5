"""The doors: HTTP and WebSocket for strangers, and the only code that knows either."""
