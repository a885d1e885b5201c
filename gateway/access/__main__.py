"""`python -m gateway.access`: the keys of a service on this machine, running or not."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from gateway.access.key_file import KeyFileInvalid
from gateway.access.keyring import Keyring
from gateway.access.principal import Scope
from gateway.errors import KeyNameTaken, TooManyKeys, UnknownKey
from gateway.settings import GatewaySettings
from gpu_worker.settings import SettingsError, load
from gpu_worker.store import private_folder, process
from gpu_worker.store.durable import StoreTooNew


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Add, list or revoke a key, and return the exit code (sysexits.h)."""
    options = _parser().parse_args(arguments)
    if options.data_dir:
        environ = {**environ, "SDE_DATA_DIR": options.data_dir}
    os.umask(0o077)
    try:
        settings = load(GatewaySettings, environ)
        reason = _reason_against(options, settings)
        if reason is not None:
            return _fail(reason, os.EX_NOINPUT)
        if options.action == "add":
            private_folder.make(settings.data_dir, follow_links=True)
        _run(options, Keyring(settings.keys_path))
    except (KeyNameTaken, TooManyKeys, UnknownKey) as error:
        return _fail(str(error), os.EX_DATAERR)
    except ValidationError:
        return _fail(
            f"name: {options.name[:80]!a} is not 1 to 64 letters, digits and . _ -", os.EX_USAGE
        )
    except (KeyFileInvalid, SettingsError) as error:
        return _fail(str(error), os.EX_CONFIG)
    except StoreTooNew as error:
        return _fail(str(error), os.EX_UNAVAILABLE)
    except OSError as error:
        if error.strerror is None:  # it is a sentence of ours, such as UnsafeFolder
            return _fail(str(error), os.EX_CANTCREAT)
        return _fail(f"the file of keys cannot be used: {error.strerror}", os.EX_CANTCREAT)
    return os.EX_OK


def _reason_against(options: argparse.Namespace, settings: GatewaySettings) -> str | None:
    """Return why the folder's file of keys is not the one that the user means; None if it is.

    Only `add` with --data-dir makes a new folder. A folder that nobody named must be a store, and
    the store of the service that answers at --answering, if one does.
    """
    folder = settings.data_dir
    places = (settings.results_dir, settings.journal_path, settings.keys_path)
    if not any(place.exists() for place in places):
        if options.action == "add" and options.data_dir:
            return None
        advice = "name the service's folder with --data-dir, or set SDE_KEY and SDE_URL"
        return f"{folder} is no data folder of a service: {advice}"
    lock = settings.run_dir / "gateway.lock"
    if options.answering and not options.data_dir and process.live_holder(lock) is None:
        return (
            f"the service at {options.answering} needs a key, and it is not that of {folder}, "
            "which does not run: set SDE_KEY, or name the folder with --data-dir"
        )
    return None


def _run(options: argparse.Namespace, keyring: Keyring) -> None:
    if options.action == "add":
        scopes = list(Scope) if options.admin else [Scope.GENERATE]
        secret = keyring.add(options.name, scopes)
        print(secret)
        _say(f"the key {options.name} is in {keyring.path}; it is shown only now")
    elif options.action == "revoke":
        if not keyring.path.exists():  # to lock it would create a file
            raise UnknownKey(options.name)
        keyring.revoke(options.name)
        _say(f"the key {options.name} is revoked in {keyring.path}")
    elif options.json:
        print(json.dumps([key.public() for key in keyring.all()], indent=2))
    else:
        for key in keyring.all():
            print(key.name, ",".join(sorted(key.scopes)), key.created_time, sep="\t")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sde key", description="Manage the service's keys.")
    parser.add_argument("--data-dir", help="default: SDE_DATA_DIR, else ./data")
    parser.add_argument("--answering", metavar="URL", help="a service that needs a key there")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="make a key and print it")
    add.add_argument("--admin", action="store_true", help="it may also manage models and keys")
    listing = actions.add_parser("list", help="print the names")
    listing.add_argument("--json", action="store_true", help="print JSON")
    revoke = actions.add_parser("revoke", help="remove a key")
    for action in (add, revoke):
        action.add_argument("name")
    return parser


def _say(text: str) -> None:
    if sys.stderr.isatty():  # a path that is longer than a line stays whole
        columns = shutil.get_terminal_size().columns
        text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)


def _fail(message: str, code: int) -> int:
    _say(f"sde key: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
