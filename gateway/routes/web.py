"""GET / and /web/{version}/{name}: the files of the page, read once when the gateway starts.

A name from a client is looked up in a table, so it never becomes a path. The files are public,
because a browser must load the page before it can ask for a key.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import falcon

WEB_DIR = Path(__file__).parent.parent / "web"

INDEX = "index.html"
ENTRY = "app.js"
VERSION_MARK = b"{version}"
"""Stands for the version in the addresses of index.html."""

PRELOAD_MARK = b"<!-- preload -->"
"""Stands for links to the modules that the page needs at once, so that they load side by side."""

_IMPORT = re.compile(rb'^(?:import|export)\b[^;]*?\bfrom\s*"(\.[^"]+)"', re.MULTILINE)

CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
"""The types of the files that are served. Files of other types are not."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
"""Nothing comes from elsewhere, and no script or style stands in the HTML. Images of the user's
own files have blob: addresses."""

IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class WebFile:
    """One file of the page, plain and compressed."""

    content_type: str
    data: bytes
    compressed: bytes
    etag: str


class WebFiles:
    """The table of the page's files by name, such as `views/make.js`.

    `version` is a digest of all files. It is a part of every address but that of the page, so that
    browsers may keep the files for good.
    """

    def __init__(self, directory: Path = WEB_DIR) -> None:
        contents = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.suffix in CONTENT_TYPES and path.is_file()
        }
        digest = hashlib.sha256()
        for name, data in contents.items():
            digest.update(f"{name}\n{len(data)}\n".encode() + data)
        self.version = digest.hexdigest()[:16]
        if INDEX in contents:
            contents[INDEX] = _page(contents, self.version)
        self._files = {name: _web_file(name, data) for name, data in contents.items()}

    def find(self, name: str) -> WebFile | None:
        """Return the file of this name, or None."""
        return self._files.get(name)

    def names(self) -> list[str]:
        """Return the names of all files."""
        return list(self._files)


def static_modules(contents: dict[str, bytes], entry: str = ENTRY) -> list[str]:
    """Return the modules that `entry` imports before it runs, itself included."""
    modules: list[str] = []
    queue = [entry]
    while queue:
        name = queue.pop(0)
        if name in modules or name not in contents:
            continue
        modules.append(name)
        folder = posixpath.dirname(name)
        queue += [
            posixpath.normpath(posixpath.join(folder, each.decode()))
            for each in _IMPORT.findall(contents[name])
        ]
    return modules


def _page(contents: dict[str, bytes], version: str) -> bytes:
    links = "\n    ".join(
        f'<link rel="modulepreload" href="web/{version}/{name}" />'
        for name in static_modules(contents)
    )
    page = contents[INDEX].replace(PRELOAD_MARK, links.encode())
    return page.replace(VERSION_MARK, version.encode())


def _web_file(name: str, data: bytes) -> WebFile:
    return WebFile(
        CONTENT_TYPES[Path(name).suffix],
        data,
        gzip.compress(data, 9, mtime=0),
        hashlib.sha256(data).hexdigest()[:32],
    )


class PageResource:
    """The page itself."""

    is_api: ClassVar = False

    def __init__(self, files: WebFiles) -> None:
        self._files = files

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with index.html, which a browser checks at every visit."""
        _answer(req, resp, self._files.find(INDEX), "no-cache")


class WebFileResource:
    """The scripts, styles and icons of the page."""

    is_api: ClassVar = False

    def __init__(self, files: WebFiles) -> None:
        self._files = files

    def on_get(self, req: falcon.Request, resp: falcon.Response, version: str, name: str) -> None:
        """Answer with a file of this version. A page of another version must be loaded again."""
        file = self._files.find(name) if version == self._files.version else None
        _answer(req, resp, file, IMMUTABLE)


def _answer(
    req: falcon.Request, resp: falcon.Response, file: WebFile | None, cache_control: str
) -> None:
    if file is None:
        raise falcon.HTTPRouteNotFound()
    resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    resp.set_header("Cache-Control", cache_control)
    resp.append_header("Vary", "Accept-Encoding")
    is_gzip = "gzip" in (req.get_header("Accept-Encoding") or "")
    etag = falcon.ETag(f"{file.etag}-gzip" if is_gzip else file.etag)
    resp.etag = etag
    stored = req.if_none_match or []
    if "*" in stored or etag in stored:
        resp.status = falcon.HTTP_NOT_MODIFIED
        return
    resp.content_type = file.content_type
    if is_gzip:
        resp.set_header("Content-Encoding", "gzip")
    resp.data = file.compressed if is_gzip else file.data
