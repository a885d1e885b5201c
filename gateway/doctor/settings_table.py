"""Reads the settings as the service does, and goes on with those that are valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from gateway.doctor.finding import Finding, ok, problem
from gateway.settings import GatewaySettings
from gpu_worker.contract import protocol
from gpu_worker.settings import NAMES, Settings, SettingsError, WorkerSettings, load

Table = TypeVar("Table", bound=Settings)


def check(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield findings on the environment's settings."""
    errors = dict.fromkeys(
        text for table in (GatewaySettings, WorkerSettings) for text in _errors(table, environ)
    )
    for text in errors:
        yield problem("settings", text)
    names = sorted(name for name in environ if name in NAMES or name == "MACHINE_SIZE")
    if not errors:
        yield ok("settings", f"set: {', '.join(names)}" if names else "none is set")
    settings = valid(GatewaySettings, environ)
    try:
        for gpu in range(settings.gpus):
            protocol.endpoint(settings.run_dir, gpu)
    except ValueError as error:
        yield problem("settings", str(error))


def valid(table: type[Table], environ: Mapping[str, str]) -> Table:
    """Return the table with the valid settings, and the defaults of the others."""
    return load(table, _valid_values(table, environ))


def usable(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the names and values that a worker would refuse."""
    aliases = {str(field.alias) for field in WorkerSettings.model_fields.values()}
    valid_values = _valid_values(WorkerSettings, environ)
    return {
        name: value
        for name, value in environ.items()
        if name in valid_values or not (name in aliases or name.startswith("SDE_"))
    }


def _valid_values(table: type[Table], environ: Mapping[str, str]) -> dict[str, str]:
    names = [str(field.alias) for field in table.model_fields.values()]
    return {
        name: environ[name]
        for name in names
        if name in environ and _error(table, {name: environ[name]}) is None
    }


def _errors(table: type[Table], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each unknown name and each invalid value."""
    aliases = {str(field.alias) for field in table.model_fields.values()}
    for name in sorted(environ):
        if name in aliases or (name.startswith("SDE_") and name not in NAMES):
            error = _error(table, {name: environ[name]})
            if error is not None:
                # The list of all settings is for the log of a process.
                yield error.partition("; the settings are ")[0]


def _error(table: type[Table], values: Mapping[str, str]) -> str | None:
    try:
        load(table, values)
    except SettingsError as error:
        return str(error)
    return None
