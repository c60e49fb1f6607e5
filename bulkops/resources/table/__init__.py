"""Rows of any SQLite table as items: how they are selected, taken, put back."""
