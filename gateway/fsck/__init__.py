"""Checks and repairs the store of a service."""
