"""Generates the images of a job: encode, denoise, decode."""
