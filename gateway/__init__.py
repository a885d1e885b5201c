"""Runs the HTTP process and the broker. It never imports torch, diffusers or transformers."""
