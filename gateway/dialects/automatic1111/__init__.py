"""Serves the API of AUTOMATIC1111's web UI under /sdapi/v1, from the one table of jobs."""
