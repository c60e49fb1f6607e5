"""Project folders with photos, and the table that mirrors them."""
