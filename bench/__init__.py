"""Measurements, each a module that prints its figures: `python -m bench.NAME`."""
