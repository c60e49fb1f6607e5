"""Folders as resources: every direct entry of a root, a folder or a file, is an item."""
