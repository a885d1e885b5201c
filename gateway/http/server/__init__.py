"""The HTTP server: waitress with limits on time, connections, headers and bodies."""
