"""Tests of the page: a real Chromium against real processes."""
