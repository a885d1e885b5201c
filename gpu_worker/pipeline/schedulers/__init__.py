"""Schedulers: the catalog, a job's choice, a dry run."""
