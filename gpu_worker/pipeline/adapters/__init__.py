"""Adds what a job names to its pipeline, and removes it afterwards."""
