"""Our own database: the only code that reads or writes it."""
