"""Runs the HTTP process and the broker. It never imports torch, diffusers or transformers."""

DISTRIBUTION = "stable-diffusion-environment"
"""The server's name in the metadata of installed packages."""
