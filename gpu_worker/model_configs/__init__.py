"""Configurations and vocabulary for single files of Stable Diffusion 1, 2 and XL, without weights.

Each directory has diffusers' layout. README.md names the sources.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
