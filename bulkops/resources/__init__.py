"""Their data: tables, folders and files, and the only code that may destroy any of it."""
