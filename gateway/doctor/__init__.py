"""Explains the installation of a service on this machine, whether it runs or not."""
