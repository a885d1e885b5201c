"""Runs the `sde` command as `python -m sde_client`."""

from sde_client.commands.app import main

if __name__ == "__main__":
    main()
