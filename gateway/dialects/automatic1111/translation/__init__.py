"""Translates requests of AUTOMATIC1111's API into requests of the service. No HTTP, no jobs."""
