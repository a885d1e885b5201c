"""Parses a request strictly: whatever two HTTP parsers could read differently is refused.

It also counts the body against the budget of all bodies, which stay in memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import waitress.parser
import waitress.receiver
from waitress.parser import ParsingError
from waitress.rfc7230 import CHUNK_EXT_RE, HEADER_FIELD_RE
from waitress.utilities import BadRequest, Error

from gateway.http.server.limits import FREE_BYTES, UploadBudget

SINGLE = (
    *(b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"),
    *(b"authorization", b"origin", b"idempotency-key", b"expect", b"last-event-id"),
)
"""Header fields with one value. A second one would be joined to the first by a comma."""

MAX_LENGTH_DIGITS = 15
MAX_CHUNK_LINE_BYTES = 4096
MAX_TRAILER_BYTES = 8192
MAX_CHUNKS = 100_000
"""A body of so many chunks is refused, because each chunk costs the main thread time."""

_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_START = re.compile(rb"(?:\r\n)*(?:\r?\Z|[!#$%&'*+.^_`|~0-9A-Za-z-])")
_START_BYTES = 64
"""A method follows after empty lines (RFC 9112, section 2.2). White space before it is refused."""

_BARE = re.compile(rb"(?<!\r)\n|\r[^\n]")
_AUTHORITY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:\[\]%-]*")


class Refused(Error):  # type: ignore[misc]
    """A refusal in waitress's own form, with its HTTP status.

    `retry_after_s` is the number of seconds after which the client may try again, or None.
    """

    def __init__(self, code: int, reason: str, body: str, retry_after_s: int | None = None) -> None:
        super().__init__(body)
        self.code, self.reason, self.retry_after_s = code, reason, retry_after_s


def no_room(retry_after_s: int = 2) -> Refused:
    """Return the refusal of a body beyond the budget of all bodies."""
    body = "the bodies of other requests take the room that SDE_MAX_UPLOADS_MIB gives them"
    return Refused(503, "Service Unavailable", body, retry_after_s)


Refuse = Callable[["Parser"], Refused | None]


class Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]
    """Collects one request.

    Args:
        adj: waitress's settings.
        budget: of the bodies of all requests.
        refuse: returns why the sender of a request may not send a large body, or None.
    """

    body_rcv: Any
    path = ""
    """The path as far as it is known, for the form of a refusal."""

    def __init__(self, adj: Any, budget: UploadBudget, refuse: Refuse) -> None:
        super().__init__(adj)
        self._budget = budget
        self._refusal_of = refuse
        self._is_admitted = False
        self._reserved_bytes = 0

    def received(self, data: bytes) -> int:
        """Take bytes of the request and return how many of them were its own."""
        fault = None if self.body_rcv is not None else _fault_of_lines(self.header_plus, data)
        try:
            if fault is not None:
                raise ParsingError(fault)
            consumed: int = super().received(data)
        except ParsingError as error:
            self._refuse(BadRequest(str(error)))
            return len(data)
        except ValueError:  # of Python's URL parser; waitress does not expect it
            self._refuse(BadRequest("the request line is invalid"))
            return len(data)
        self._count()
        if self.error is not None:
            # waitress would send 100 Continue instead of the error.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the request line and the header fields. Raises ParsingError."""
        self.path = _path_of(header_plus)
        _check_fields(header_plus)
        super().parse_header(header_plus)
        self._check_version()
        self._check_host()
        if self.chunked:
            self.body_rcv = ChunkedBody(self.body_rcv.buf)
        elif self.content_length > FREE_BYTES and self._is_refused():
            return
        elif self._is_beyond_budget():
            self._refuse(no_room())

    def close(self) -> None:
        """Free the body and its part of the budget. A second call does nothing."""
        super().close()
        size_bytes, self._reserved_bytes = self._reserved_bytes, 0
        self._budget.give_back(size_bytes)

    def _is_refused(self) -> bool:
        """Check the sender of a large body, once. Others could take the room of those who may."""
        if not self._is_admitted:
            refusal = self._refusal_of(self)
            if refusal is not None:
                self._refuse(refusal)
                return True
            self._is_admitted = True
        return False

    def _is_beyond_budget(self) -> bool:
        """Return whether the announced body has no room now. Its bytes are counted as they come."""
        size: int = self.content_length
        limit: int = self.adj.max_request_body_size
        return self._budget.free_bytes + FREE_BYTES < size < limit

    def _count(self) -> None:
        if self.body_rcv is None or self.error is not None:
            return
        more = len(self.body_rcv) - FREE_BYTES - self._reserved_bytes
        if more <= 0 or self._is_refused():
            return
        if self._budget.take(more):
            self._reserved_bytes += more
        else:
            self._refuse(no_room())

    def _refuse(self, error: Error) -> None:
        self.error, self.completed = error, True
        self.close()

    def _check_version(self) -> None:
        if self.version not in ("", "1.0", "1.1"):
            self._refuse(
                Refused(505, "HTTP Version Not Supported", "the versions are HTTP/1.0 and HTTP/1.1")
            )
        if self.version != "1.1" and self.headers.get("TRANSFER_ENCODING") is not None:
            raise ParsingError("Transfer-Encoding is unknown to this version of HTTP")

    def _check_host(self) -> None:
        host = self.headers.get("HOST")
        if host is None and self.version == "1.1":
            raise ParsingError("Host: is missing")
        if host is not None and _AUTHORITY.fullmatch(host) is None:
            raise ParsingError(f"Host: {host[:80]!a} is not a name with a port")
        if self.proxy_netloc and self.proxy_netloc.lower() != (host or "").lower():
            raise ParsingError(f"Host: {(host or '')[:80]!a} is not the host of the request line")


def _fault_of_lines(start: bytes, data: bytes) -> str | None:
    """Return what is wrong with the lines of a header, of which `data` is the next part."""
    if len(start) < _START_BYTES and _START.match(start + data[:_START_BYTES]) is None:
        return "the request line is invalid"
    part = start[-3:].lstrip(b"\n") + data  # an end of lines may come in two parts
    end = part.find(b"\r\n\r\n")
    if _BARE.search(part if end < 0 else part[:end]) is not None:
        return "a line of the header does not end with CR LF"
    return None


def _path_of(header: bytes) -> str:
    """Return the path in a header that may be invalid, or nothing."""
    words = header.partition(b"\r\n")[0].split(b" ")
    return words[1].partition(b"?")[0].decode("latin-1") if len(words) > 1 else ""


def _check_fields(header: bytes) -> None:
    """Refuse folded lines, and fields that must be single. Raises ParsingError."""
    first_line, *lines = header.split(b"\r\n")
    if any(char < 0x21 and char != 0x20 for char in first_line):
        raise ParsingError("the request line has a control character")
    values: dict[bytes, bytes] = {}
    count: Counter[bytes] = Counter()
    for line in filter(None, lines):
        if line[:1] in b" \t":
            raise ParsingError("a header line is folded")
        field = HEADER_FIELD_RE.match(line)
        if field is None:
            raise ParsingError("a header line is invalid")
        name = field["name"].lower()
        count[name] += 1
        if count[name] > 1 and name in SINGLE:
            raise ParsingError(f"{name.decode().title()} is sent more than once")
        values[name] = field["value"].strip(b" \t")
    _check_length(values)


def _check_length(values: dict[bytes, bytes]) -> None:
    """Refuse a body whose length can be read in two ways. Raises ParsingError."""
    length, coding = values.get(b"content-length"), values.get(b"transfer-encoding")
    if length is not None and coding is not None:
        raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
    if length is not None and not (length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
        raise ParsingError("Content-Length is invalid")
    # waitress answers 501 to a single other coding.
    if coding is not None and not coding.isalpha():
        raise ParsingError("Transfer-Encoding must be chunked")


class ChunkedBody(waitress.receiver.ChunkedReceiver):  # type: ignore[misc]
    """Decodes a chunked body (RFC 9112, section 7.1) with limits. Trailers are dropped."""

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer)
        self._line = b""
        self._chunks = self._trailer_bytes = 0

    def received(self, data: bytes) -> int:
        """Take bytes of the body and return how many of them were its own."""
        at = 0
        while at < len(data) and not self.completed and self.error is None:
            if self.chunk_remainder:
                piece = data[at : at + self.chunk_remainder]
                self.buf.append(piece)
                self.chunk_remainder -= len(piece)
                self.validate_chunk_end = not self.chunk_remainder
            else:
                end = data.find(b"\n", at)
                piece = data[at : end + 1] if end >= 0 else data[at:]
                self._add_to_line(piece)
            at += len(piece)
        return at

    def _add_to_line(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > MAX_CHUNK_LINE_BYTES:
            self.error = BadRequest("a line of the chunked body is too long")
        elif self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                self.error = BadRequest("a line of the chunked body does not end with CR LF")
            else:
                self._take_line(line[:-2])

    def _take_line(self, line: bytes) -> None:
        if self.validate_chunk_end:
            self.validate_chunk_end = False
            if line:
                self.error = BadRequest("a chunk is longer than its size")
        elif self.all_chunks_received:
            self._take_trailer(line)
        else:
            self._begin_chunk(line)

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if not line:
            self.completed = True
        elif self._trailer_bytes > MAX_TRAILER_BYTES or HEADER_FIELD_RE.match(line) is None:
            self.error = BadRequest("a trailer of the chunked body is invalid or too long")

    def _begin_chunk(self, line: bytes) -> None:
        size, semicolon, extension = line.partition(b";")
        self._chunks += 1
        if _CHUNK_SIZE.fullmatch(size) is None:
            self.error = BadRequest("the size of a chunk is invalid")
        elif semicolon and CHUNK_EXT_RE.fullmatch(semicolon + extension) is None:
            self.error = BadRequest("the extension of a chunk is invalid")
        elif self._chunks > MAX_CHUNKS:
            self.error = BadRequest(f"the body has more than {MAX_CHUNKS} chunks")
        else:
            self.chunk_remainder = int(size, 16)
            self.all_chunks_received = not self.chunk_remainder
