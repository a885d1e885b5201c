"""Readers of the result log, and the other files that the gateway keeps."""
