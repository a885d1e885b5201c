"""The `sde` command: one file for each group of subcommands."""
