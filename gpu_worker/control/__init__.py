"""The worker's control side: REP server, slots, runner, watchdog."""
