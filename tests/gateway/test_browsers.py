"""What a web page can do: hosts, origins, embedding, CORS and headers (rows 51, 52, 53 and 60)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import requests

from gateway.access.hosts import HostAllowlist, split_host
from gateway.access.origins import OriginCheck, parse_origin
from gateway.access.proxies import TrustedProxies
from gateway.errors import HostMalformed, OtherOrigin, UnknownHost
from tests.support.service import Service, running

FRIEND = "https://studio.example"


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on loopback without keys, known as gpu-box, with one friendly origin."""
    folder = tmp_path_factory.mktemp("s")
    settings = {"SDE_ALLOWED_HOSTS": "gpu-box, sd.example:8443", "SDE_ALLOWED_ORIGINS": FRIEND}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        yield service


def exchange(service: Service, *lines: str, body: str = "") -> tuple[int, dict[str, str], str]:
    """Send these very lines over a socket; return status, headers in lower case, and body."""
    text = "\r\n".join([*lines, "Connection: close", "", body])
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as raw:
        raw.sendall(text.encode("latin-1"))
        reply = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    head, _, content = reply.partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
    return int(status.split()[1]), headers, content


class TestHosts:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"])
    @pytest.mark.parametrize("path", ["/server/status", "/image/generate", "/healthz", "/nothing"])
    def test_a_foreign_name_gets_nowhere(
        self, open_service: Service, method: str, path: str
    ) -> None:
        status, _, _ = exchange(open_service, f"{method} {path} HTTP/1.1", "Host: evil.example")
        assert status == 421

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            *((name, 200) for name in ("localhost", "LocalHost", "127.0.0.1", "[::1]", "gpu-box")),
            *((f"{name}:9999", 200) for name in ("localhost", "127.0.0.1", "[::1]", "GPU-BOX")),
            *((name, 200) for name in ("sd.example:8443", "[0:0:0:0:0:0:0:1]:80")),
            *((name, 421) for name in ("sd.example", "sd.example:443", "sd.example.:8443")),
            *((name, 421) for name in ("127.0.0.1.evil.example", "localhost.evil.example")),
            *((name, 421) for name in ("evil.example:9090", "localhost.", "127.0.0.2", "[::2]")),
            *((name, 421) for name in ("2130706433", "0177.0.0.1", "127.1", "0.0.0.0", "gpu-box2")),
            *((name, 400) for name in ("", "::1", "a b", "user@localhost", "localhost:x", "[::1")),
            *((name, 400) for name in ("localhost/", "http://localhost", "localhost,evil.example")),
            *((name, 400) for name in ("[localhost]", "localhost:123456", "*", "l\xf6calhost")),
        ],
    )
    def test_a_name_counts_as_a_whole(
        self, open_service: Service, host: str, expected: int
    ) -> None:
        status, _, body = exchange(open_service, "GET /server/status HTTP/1.1", f"Host: {host}")
        assert status == expected
        if status >= 400:
            assert json.loads(body)["detail"].startswith("Host: ")

    def test_none_and_two_are_refused(self, open_service: Service) -> None:
        line = "GET /server/status HTTP/1.1"
        assert exchange(open_service, line)[0] == 400
        for first, second in (("localhost", "evil.example"), ("evil.example", "localhost")):
            assert exchange(open_service, line, f"Host: {first}", f"Host: {second}")[0] == 400

    def test_http_1_0_has_none(self, open_service: Service) -> None:
        assert exchange(open_service, "GET /server/status HTTP/1.0")[0] == 200
        line = "GET /server/status HTTP/1.0"
        assert exchange(open_service, line, "Host: evil.example")[0] == 421

    def test_a_forwarded_host_does_not_count(self, open_service: Service) -> None:
        lines = ("GET /server/status HTTP/1.1", "Host: evil.example")
        assert exchange(open_service, *lines, "X-Forwarded-Host: localhost")[0] == 421

    def test_a_service_on_all_addresses_has_the_machines_own(self) -> None:
        hosts = HostAllowlist("0.0.0.0", own_addresses=lambda: frozenset({"192.0.2.7", "fe80::1"}))
        for name in ("192.0.2.7:9090", "[FE80::1]", socket.gethostname(), "localhost"):
            hosts.check(name)
        for name in ("192.0.2.8", "0.0.0.0", "[fe80::2]"):
            with pytest.raises(UnknownHost):
                hosts.check(name)
        assert HostAllowlist("0.0.0.0")._own_addresses() >= {"127.0.0.1"}

    @pytest.mark.parametrize("text", ["", ":80", "a:", "[]", "[::1]x", "a:b:c", "\n", "a\n", "%00"])
    def test_malformed_text_is_no_host(self, text: str) -> None:
        with pytest.raises(HostMalformed):
            split_host(text)


CHANGES = [
    ("POST", "/image/generate"),
    ("POST", "/image/upscale"),
    ("POST", "/server/models/demo/load"),
    ("POST", "/server/session"),
    ("DELETE", "/image/generate?generation_uuid=00000000-0000-4000-8000-000000000001"),
    ("DELETE", "/image/jobs/00000000-0000-4000-8000-000000000001"),
    ("PUT", "/image/generate"),
]


class TestOrigins:
    @pytest.mark.parametrize(("method", "path"), CHANGES)
    @pytest.mark.parametrize(
        "header",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Origin": "file://"},
            {"Origin": "http://localhost:1"},
            {"Origin": "http://localhost.evil.example"},
            {"Origin": f"{FRIEND}.evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_a_page_of_another_origin_changes_nothing(
        self, open_service: Service, method: str, path: str, header: dict[str, str]
    ) -> None:
        headers = {"Content-Type": "application/json", **header}
        reply = requests.request(
            method, open_service.url + path, json={"prompt": "x"}, headers=headers, timeout=60
        )
        assert reply.status_code == 403 and reply.json()["title"] == "Other origin"
        assert open_service.lines() == []

    def test_our_own_page_may(self, open_service: Service) -> None:
        own = {"Origin": open_service.url, "Sec-Fetch-Site": "same-origin"}
        reply = open_service.post({"prompt": ""}, headers=own)
        assert reply.status_code == 422
        assert (
            open_service.post({"prompt": ""}, headers={"Sec-Fetch-Site": "none"}).status_code == 422
        )

    @pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", ""])
    @pytest.mark.parametrize("path", ["/image/generate", "/server/status", "/image/files/x.png"])
    def test_another_site_embeds_nothing(self, open_service: Service, path: str, mode: str) -> None:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        reply = open_service.get(path, headers=headers)
        assert reply.status_code == 403
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"

    def test_a_link_of_another_site_works(self, open_service: Service) -> None:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert open_service.get("/server/status", headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "content_type",
        [
            *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"),
            *("text/plain; application/json", "application/json-patch+json", "json"),
        ],
    )
    def test_a_form_of_any_page_is_no_json(
        self, open_service: Service, content_type: str | None
    ) -> None:
        headers = {} if content_type is None else {"Content-Type": content_type}
        reply = open_service.request(
            "POST", "/image/generate", data=b'{"prompt": "x"}', headers=headers
        )
        assert reply.status_code == 415

    @pytest.mark.parametrize("text", ["null", "", "example", "ftp://a", "http://", "http://a/b"])
    def test_other_text_is_no_origin(self, text: str) -> None:
        with pytest.raises(ValueError, match="origin"):
            parse_origin(text)

    def test_a_proxy_with_tls_does_not_make_our_page_foreign(self) -> None:
        check = OriginCheck().check
        check("POST", "sd.example", "https://sd.example", "same-origin", "cors")
        with pytest.raises(OtherOrigin):
            check("POST", "sd.example", "https://sd.example:8443", "same-origin", "cors")


class TestCors:
    def test_nobody_is_admitted_by_default(self, open_service: Service) -> None:
        for origin in ("https://evil.example", "null", open_service.url):
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            for reply in (
                open_service.request("OPTIONS", "/image/generate", headers=headers),
                open_service.get("/server/status", headers={"Origin": origin}),
            ):
                assert not [name for name in reply.headers if name.startswith("Access-Control")]

    def test_a_named_origin_is(self, open_service: Service) -> None:
        headers = {
            "Origin": FRIEND,
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "cors",
        }
        asks = headers | {"Access-Control-Request-Method": "POST"}
        preflight = open_service.request("OPTIONS", "/image/generate", headers=asks)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        for reply in (preflight, open_service.post({"prompt": ""}, headers=headers)):
            assert reply.headers["Access-Control-Allow-Origin"] == FRIEND
            assert "Access-Control-Allow-Credentials" not in reply.headers
            assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize(
    "path", ["/server/status", "/healthz", "/nothing", "/image/generate", "/server/models"]
)
def test_every_answer_tells_browsers_what_not_to_do(open_service: Service, path: str) -> None:
    headers = open_service.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Server" not in headers


class TestProxies:
    def environ(self, peer: str, **headers: str) -> dict[str, str]:
        named = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        return {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "a", **named}

    def test_only_a_trusted_one_is_believed(self) -> None:
        sent = {
            "x_forwarded_for": "198.51.100.1, 203.0.113.5, 10.0.0.2",
            "x_forwarded_proto": "https",
            "x_forwarded_host": "sd.example",
            "x_forwarded_prefix": "/sd/",
        }
        believed = self.environ("127.0.0.1", **sent)
        assert TrustedProxies(["127.0.0.1", "10.0.0.0/8"]).apply(believed) is True
        assert believed["REMOTE_ADDR"] == "203.0.113.5"  # the leftmost could be invented
        assert believed["wsgi.url_scheme"] == "https" and believed["HTTP_HOST"] == "sd.example"
        assert believed["SCRIPT_NAME"] == "/sd"
        ignored = self.environ("192.0.2.1", **sent)
        assert TrustedProxies(["127.0.0.1"]).apply(ignored) is True
        assert ignored == self.environ("192.0.2.1", **sent)

    @pytest.mark.parametrize("value", ["", "unknown", "1.2.3.4:80", "a, b", "\x00", ",,,"])
    def test_nonsense_changes_nothing(self, value: str) -> None:
        environ = self.environ(
            "127.0.0.1",
            x_forwarded_for=value,
            x_forwarded_proto=value,
            x_forwarded_prefix=f"/../{value}",
        )
        TrustedProxies(["127.0.0.1"]).apply(environ)
        assert environ["REMOTE_ADDR"] == "127.0.0.1" and "SCRIPT_NAME" not in environ
        assert environ["wsgi.url_scheme"] == "http"

    def test_a_prefix_is_taken_off_and_put_into_links(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("s")
        with running(folder, "gateway", "gpu_worker", SDE_PATH_PREFIX="/sd") as service:
            for seed in range(2):
                service.result(service.submit(seed=seed))
            assert service.get("/sd/server/status").status_code == 200
            reply = service.get("/sd/image/generate?limit=1")
            link = reply.links["next"]["url"]
            assert link.startswith("/sd/image/generate?")
            assert len(service.get(link).json()) == 1
            cookie = service.request("DELETE", "/sd/server/session").headers["Set-Cookie"]
            assert "Path=/sd" in cookie
