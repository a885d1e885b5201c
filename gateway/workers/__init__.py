"""The links to the workers: one thread a worker owns its socket."""
