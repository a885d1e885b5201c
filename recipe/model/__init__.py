"""The model's networks, its words, and its files."""
