"""The files of the page: what is served, to whom, with which headers, and how small it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gateway.routes.web import INDEX, WEB_DIR, WebFiles, static_modules
from tests.support.service import ROOT, Service, running

FIRST_LOAD_BYTES = 80 * 1024
OWN = sorted(
    path
    for path in WEB_DIR.rglob("*")
    if path.suffix in (".js", ".css") and "vendor" not in path.parts
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Service]:
    """A gateway that needs a key, without a worker."""
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(
            Path(folder),
            "gateway",
            SDE_KEYS="laptop:sde_0123456789abcdef0123456789abcdef",
            SDE_KEY="sde_0123456789abcdef0123456789abcdef",
        ) as service,
    ):
        yield service


def fetch(service: Service, path: str, **options: object) -> requests.Response:
    """Without a key."""
    return requests.get(service.url + path, timeout=60, **options)  # type: ignore[arg-type]


def addresses(service: Service) -> list[str]:
    """All that the page names itself."""
    return re.findall(r'(?:href|src)="(web/[^"]+)"', fetch(service, "/").text)


def test_the_page_needs_no_key_and_everything_else_does(gateway: Service) -> None:
    page = fetch(gateway, "/")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert all(fetch(gateway, f"/{path}").status_code == 200 for path in addresses(gateway))
    for path in ("/image/jobs", "/server/workers", "/server/session", "/image/generate"):
        assert fetch(gateway, path).status_code == 401


def test_the_policy_admits_nothing_from_elsewhere_and_nothing_inline(gateway: Service) -> None:
    page = fetch(gateway, "/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert "script-src" not in policy and "style-src" not in policy and "http" not in policy
    assert "<script>" not in page.text and "style=" not in page.text
    assert page.headers["X-Frame-Options"] == "DENY"
    other = fetch(gateway, "/healthz").headers["Content-Security-Policy"]
    assert other.startswith("default-src 'none'")


def test_the_page_is_checked_at_each_visit_and_its_files_are_kept(gateway: Service) -> None:
    page = fetch(gateway, "/")
    assert page.headers["Cache-Control"] == "no-cache"
    again = fetch(gateway, "/", headers={"If-None-Match": page.headers["ETag"]})
    assert again.status_code == 304 and again.content == b""
    path = next(each for each in addresses(gateway) if each.endswith("app.js"))
    script = fetch(gateway, f"/{path}")
    assert "immutable" in script.headers["Cache-Control"]
    assert script.headers["Content-Type"].startswith("text/javascript")
    plain = fetch(gateway, f"/{path}", headers={"Accept-Encoding": "identity"})
    assert plain.content == script.content and "Content-Encoding" not in plain.headers
    assert plain.headers["ETag"] != script.headers["ETag"]


def test_head_has_the_same_headers(gateway: Service) -> None:
    for path in ("/", f"/{addresses(gateway)[0]}"):
        head = requests.head(gateway.url + path, timeout=60)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["Content-Length"] == fetch(gateway, path).headers["Content-Length"]


@pytest.mark.parametrize(
    "name",
    ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "vendor/", "", "vendor/preact.d.ts", "app.js/x"],
)
def test_a_name_is_only_looked_up(gateway: Service, name: str) -> None:
    version = addresses(gateway)[0].split("/")[1]
    request = requests.Request("GET", gateway.url).prepare()
    request.url = f"{gateway.url}/web/{version}/{name}"
    with requests.Session() as session:
        assert session.send(request, timeout=60).status_code in (401, 404)


def test_another_version_is_not_found(gateway: Service) -> None:
    assert fetch(gateway, "/web/0000000000000000/app.js").status_code == 404


def test_the_first_load_is_small() -> None:
    files = WebFiles()
    page = files.find(INDEX)
    assert page is not None
    names = {INDEX, *re.findall(rf"web/{files.version}/([^\"]+)", page.data.decode())}
    loaded = [files.find(name) for name in sorted(names)]
    assert None not in loaded and len(loaded) > 30
    total = sum(len(each.compressed) for each in loaded if each is not None)
    print(f"first load: {total / 1024:.1f} KiB gzipped, {len(loaded)} files")
    assert total <= FIRST_LOAD_BYTES


def test_every_import_is_there() -> None:
    contents = {
        path.relative_to(WEB_DIR).as_posix(): path.read_bytes() for path in WEB_DIR.rglob("*.js")
    }
    modules = set(static_modules(contents))
    lazy = {
        posixpath.normpath(posixpath.join(posixpath.dirname(name), each))
        for name, data in contents.items()
        for each in re.findall(r'\bimport\("([^"]+)"\)', data.decode())
    }
    for entry in lazy:
        modules |= set(static_modules(contents, entry))
    assert {name for name in contents if name not in modules} == set()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(WEB_DIR).as_posix())
def test_a_file_is_small_and_makes_no_html_of_text(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"):
        assert word not in text
    assert "dangerouslySetInnerHTML" not in text
    if path.suffix == ".js":
        assert text.startswith("// "), "a file begins with its duty"


def test_the_libraries_are_those_of_the_checksums() -> None:
    vendor = WEB_DIR / "vendor"
    listed = json.loads((vendor / "checksums.json").read_text())
    assert set(listed) == {path.name for path in vendor.glob("*.js")}
    lock = json.loads((ROOT / "tools/web/package-lock.json").read_text())["packages"]
    licences = (vendor / "LICENSES.txt").read_text()
    for name, entry in listed.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == entry["sha256"]
        for package, version in entry["versions"].items():
            assert lock[f"node_modules/{package}"]["version"] == version
            assert f"{package} {version}" in licences


def test_what_is_compressed_is_the_file() -> None:
    files = WebFiles()
    for name in files.names():
        file = files.find(name)
        assert file is not None and gzip.decompress(file.compressed) == file.data
