"""Measurements, each a module that prints its figures: `python -m bench.NAME`."""

from gpu_worker import quantizers

# As the worker does it, so that importing diffusers costs and says the same.
quantizers.prepare("none")
