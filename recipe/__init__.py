"""The recipe of the built-in model: its images, its words, its training and its export."""
