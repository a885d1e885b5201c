"""One stream of events for every page: what happens to jobs, results and workers."""
