"""What an operator sees of the gateway: lines of the log, and metrics."""
