"""`python -m sde_client` is the `sde` command."""

from sde_client.commands.app import main

if __name__ == "__main__":
    main()
