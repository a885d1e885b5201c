"""Serves the OpenAI images API under /v1: its requests become jobs like any other."""
