"""Model files: the library of names, digests, downloads."""
