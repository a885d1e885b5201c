"""Defines what gateway and worker exchange: requests, jobs, checks, messages. It does no I/O."""
