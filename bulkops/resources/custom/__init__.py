"""Resources made in Python: things that are neither rows nor folders, behind a class of the host's."""
