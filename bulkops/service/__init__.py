"""The engine: one thing at a time."""
