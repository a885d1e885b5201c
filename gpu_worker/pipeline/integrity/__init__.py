"""Checks that every image has to pass: its numbers are finite, and a mask's pixels are kept."""
