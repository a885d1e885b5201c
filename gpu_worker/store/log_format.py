"""Writes one line an event to stderr, as text or JSON, for both processes.

No text in a line can begin another line, move a terminal's cursor or show a secret of the
environment. supervisord rotates the files.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import stat
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

Format = Literal["text", "json"]

FIELDS = "fields"
"""The attribute of a log record that holds its fields, a mapping of names to values."""

WAIT_MS = 200
"""How long a line waits for a reader of the log that has stopped. After that lines are dropped."""

HIDDEN = "***"

_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|_KEYS?)$", re.IGNORECASE)
_MIN_SECRET_CHARS = 6
"""A shorter value, such as `on`, would hide ordinary words."""

_KEYS_SETTING = "SDE_KEYS"
"""`NAME:SECRET` or `NAME:SECRET:SCOPE`, with commas between."""

_SECRET_FORMS = (
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{HIDDEN}@"),  # http://user:password@proxy
    (re.compile(r"\b(Bearer|Basic)(\s+)[^\s\"',]+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),  # the form of the hub's tokens
    (re.compile(r"sde_[A-Za-z0-9_-]{20,}"), HIDDEN),  # the form of the service's keys
)

_MIN_FORM_CHARS = 1024
"""A secret that is known by its form is seldom longer."""


class SecretFilter:
    """Replaces secrets in a text: those of the environment, and what has the form of one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        values = {
            secret
            for name, value in environ.items()
            if _SECRET_NAME.search(name)
            for secret in _secrets_of(name, value)
            if len(secret) >= _MIN_SECRET_CHARS
        }
        # A secret may begin with another one.
        self._values = sorted(values, key=len, reverse=True)
        self._longest_chars = max([_MIN_FORM_CHARS, *map(len, values)])

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        for pattern, replacement in _SECRET_FORMS:
            text = pattern.sub(replacement, text)
        return text

    def whole_until(self, text: str) -> int:
        """Return where a text can be cut in two, each part of which is then filtered alone.

        The cut is in no secret, also if the text ends in the middle of one. 0 is returned if there
        is no such place.
        """
        end = max(0, len(text) - self._longest_chars)
        patterns = (*map(re.compile, map(re.escape, self._values)), *(f for f, _ in _SECRET_FORMS))
        spans = [match.span() for pattern in patterns for match in pattern.finditer(text)]
        for start, stop in sorted(spans, reverse=True):
            if start < end < stop:
                end = start
        return end


def _secrets_of(name: str, value: str) -> Iterator[str]:
    """Yield the secrets of a variable: its value, and the parts that a log shows without the rest.

    A log has lines, so each line of a value of several lines is one.
    """
    yield value.strip()
    for line in value.splitlines():
        yield line.strip()
    if name == _KEYS_SETTING:
        for entry in value.split(","):
            yield entry.partition(":")[2].partition(":")[0].strip()


def printable(text: str) -> str:
    """Return the text as one line whose control characters are escapes of Python."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class TextFormatter(logging.Formatter):
    """Formats an event as `TIME LEVEL LOGGER: MESSAGE name=value ...`, with UTC.

    The lines of a traceback are indented, so that none of them looks like an event.
    """

    def __init__(self, hide: SecretFilter) -> None:
        super().__init__()
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of the traceback if there is one."""
        fields = getattr(record, FIELDS, {})
        words = [f"{name}={_text_value(value)}" for name, value in fields.items()]
        head = f"{_time(record)} {record.levelname} {record.name}: "
        lines = [head + printable(self._hide(" ".join([record.getMessage(), *words])))]
        lines += [f"    {printable(self._hide(line))}" for line in _trace(record).splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """Formats an event as a JSON object on one line of ASCII."""

    def __init__(self, hide: SecretFilter) -> None:
        super().__init__()
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. The fields of the event are members beside the usual ones."""
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        trace = _trace(record)
        if trace:
            event["traceback"] = trace
        text = json.dumps({name: self._clean(value) for name, value in event.items()}, default=str)
        return text.replace("\x7f", "\\u007f")

    def _clean(self, value: object) -> object:
        return self._hide(value) if isinstance(value, str) else value


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _trace(record: logging.LogRecord) -> str:
    """Return the traceback and the stack of an event, or an empty text."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _text_value(value: object) -> str:
    """Return a value so that it has no blank and can be told from the next name."""
    if value is None:
        return "-"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    is_plain = text.isprintable() and not re.search(r'[\s"=]', text) and text not in ("", "-")
    return text if is_plain else json.dumps(text, ensure_ascii=False)


class LineHandler(logging.Handler):
    """Writes lines to a descriptor. A reader that has stopped costs lines, and no thread for ever.

    supervisord reads the logs through pipes. While it is stopped its pipes fill.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped = 0
        self._is_torn = False
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_blocking(descriptor, False)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event. logging holds the lock of the handler."""
        try:
            self._write(self.format(record))
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write(self.format(_dropped_lines(dropped)))
        except OSError:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def _write(self, line: str) -> None:
        """Write a whole line. Raises OSError when the reader does not read."""
        content = f"{line}\n".encode(errors="backslashreplace")
        if self._is_torn:
            content = b"\n" + content
        rest = write_all(self._descriptor, content, 0 if self._dropped else WAIT_MS)
        self._is_torn = (self._is_torn and rest == content) or b"" != rest != content
        if rest:
            raise BlockingIOError


def write_all(descriptor: int, content: bytes, wait_ms: int = WAIT_MS) -> bytes:
    """Write to a descriptor that may not block, and return what its reader did not take.

    Raises:
        OSError: the descriptor cannot be written.
    """
    while content:
        try:
            content = content[os.write(descriptor, content) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if not poll.poll(wait_ms):
                return content
    return content


def _dropped_lines(count: int) -> logging.LogRecord:
    message = "nothing read the log for a while, so lines were dropped"
    attributes = {"msg": message, "levelname": "WARNING", "name": __name__}
    return logging.makeLogRecord(attributes | {FIELDS: {"lines": count}})


def configure(log_format: Format, environ: Mapping[str, str]) -> None:
    """Send all events of this process to stderr, in the format of SDE_LOG_FORMAT."""
    hide = SecretFilter(environ)
    handler = logging.NullHandler() if sys.stderr is None else LineHandler(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter(hide) if log_format == "json" else TextFormatter(hide))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Else Python prints a traceback itself, with whatever the exception says.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    log = logging.getLogger(__name__)
    log.critical("an error was not caught", exc_info=(kind, error, trace))
