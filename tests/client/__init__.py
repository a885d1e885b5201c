"""Tests; helpers that several share lie in tests/support/."""
