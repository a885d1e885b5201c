"""The parts, each a module whose `part()` returns its cases."""
