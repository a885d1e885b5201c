"""Tiny models, adapters and files, made on the spot with the libraries' own classes."""
