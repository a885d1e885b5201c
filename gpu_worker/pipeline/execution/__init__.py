"""How the device computes: its errors, dtypes, what fits its memory, and what is switched on."""
