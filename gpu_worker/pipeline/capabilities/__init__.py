"""Describes what can be asked for, and what made an image."""
