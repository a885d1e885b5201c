"""Checks that the workers can do a request, and decodes the images in it."""
