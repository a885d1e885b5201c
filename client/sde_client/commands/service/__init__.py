"""Commands for those who run a service: its models, its keys, and the tools of its machine."""
