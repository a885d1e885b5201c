"""Makes images larger without a diffusion model."""
