"""Measurements, each a module that prints its figures: `python -m bench.NAME`."""

import os

from gpu_worker import quantization_libraries

# As the worker does it, so that importing diffusers costs and says the same.
quantization_libraries.hide_unused("none")

# As in the worker: transformers warns of image processors that no picture needs.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
