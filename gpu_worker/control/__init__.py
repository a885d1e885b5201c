"""The worker's control side: REP server, slot, runner, watchdog."""
