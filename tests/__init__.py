"""The tests. Processes, sockets, signals and files are real; only the pipeline may be a fake."""
