"""Checks who may use the service: the file of keys, SDE_KEYS, and the address to listen on."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.access import hosts, key_file, keyring
from gateway.access.key_file import KeyFileInvalid
from gateway.doctor.finding import Finding, ok, problem, warning
from gateway.settings import GatewaySettings


def check(settings: GatewaySettings) -> Iterator[Finding]:
    """Yield findings on the keys, and on the machines that the service lets in."""
    path = settings.keys_path
    try:
        stored = key_file.read(path)
    except (KeyFileInvalid, OSError) as error:
        reason = str(error) if str(path) in str(error) else f"{path}: {error}"
        text = f"{reason}. Until that is mended no key of it is valid, and no gateway starts"
        yield problem("keys", text)
        yield from _reach(settings, has_keys=True)
        return
    others = keyring.parse_environment(settings.keys.get_secret_value())
    count = len(others) + len(stored or ())
    has_keys = stored is not None or bool(others)
    if count:
        yield ok("keys", f"{count} {'key is' if count == 1 else 'keys are'} valid")
    elif has_keys:
        yield warning("keys", "the last key was revoked: `sde key add NAME --admin` makes another")
    yield from _reach(settings, has_keys)


def _reach(settings: GatewaySettings, has_keys: bool) -> Iterator[Finding]:
    if hosts.is_loopback(settings.host) or not hosts.has_address(settings.host):
        return
    text = f"SDE_HOST={settings.host} lets other machines in"
    if settings.allow_anonymous:
        advice = "SDE_ALLOW_ANONYMOUS=1 admits everybody: use keys, or a firewall"
        yield warning("address", f"{text}, and {advice}")
    elif has_keys:
        yield ok("address", f"{text}, and each request needs a key")
    else:
        advice = "there is no key: `make run` makes the first one"
        yield warning("address", f"{text}, and {advice}")
