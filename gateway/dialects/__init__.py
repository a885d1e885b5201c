"""Serves the APIs of other programs, each in a room of its own, from the one table of jobs."""
