"""Keys: who gets in, what a key allows, and that its secret is nowhere (rows 50, 57 and 58)."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from pydantic import ValidationError

from gateway.access import key_file, keys
from gateway.access.failure_limit import MAX_ADDRESSES, MAX_FAILURES, WINDOW_S, FailureLimit
from gateway.access.key_file import KeyFileInvalid
from gateway.access.keyring import Keyring, parse_environment
from gateway.access.principal import Scope
from gateway.errors import KeyNameTaken, TooManyWrongKeys, UnknownKey
from tests.support.service import (
    Service,
    eventually,
    run_module,
    running,
)

ADMIN, GUEST = "an-admins-secret-canary-1", "a-guests-secret-canary-22"
RING = f"owner:{ADMIN}, guest:{GUEST}:generate"
ABSENT = "00000000-0000-4000-8000-000000000001"
ROUTES = [
    ("GET", "/server/status"),
    ("HEAD", "/server/status"),
    ("GET", "/server/workers"),
    ("GET", "/server/keys"),
    ("GET", "/server/session"),
    ("GET", "/image/generate"),
    ("POST", "/image/generate"),
    ("DELETE", f"/image/generate?generation_uuid={ABSENT}"),
    ("GET", f"/image/jobs/{ABSENT}/events"),
    ("DELETE", f"/image/jobs/{ABSENT}"),
    ("POST", "/server/models/demo/load"),
    ("GET", "/no/such/path"),
    ("PATCH", "/image/generate"),
    ("OPTIONS", "/image/generate"),
]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an admin's key and a guest's."""
    folder = tmp_path_factory.mktemp("s")
    with running(folder, "gateway", "gpu_worker", SDE_KEYS=RING, SDE_KEY=ADMIN) as service:
        yield service


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def send(service: Service, method: str, path: str, **options: object) -> requests.Response:
    """Send a request without the service's own key."""
    return requests.request(method, service.url + path, timeout=60, **options)  # type: ignore[arg-type]


class TestWhoGetsIn:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_no_route_answers_without_a_key(self, locked: Service, method: str, path: str) -> None:
        bare = send(locked, method, path)
        assert bare.status_code == 401
        assert bare.headers["WWW-Authenticate"] == 'Bearer realm="sde"'
        if method != "HEAD":
            assert bare.json()["title"] == "Key required"

    @pytest.mark.parametrize("path", ["/healthz"])
    def test_a_probe_needs_none(self, locked: Service, path: str) -> None:
        assert send(locked, "GET", path).status_code == 200

    @pytest.mark.parametrize("secret", [ADMIN, GUEST])
    def test_a_key_may_come_in_each_usual_way(self, locked: Service, secret: str) -> None:
        basic = base64.b64encode(f"anybody:{secret}".encode()).decode()
        for headers in (
            bearer(secret),
            {"Authorization": f"bearer  {secret}"},
            {"Authorization": f"Basic {basic}"},
        ):
            assert send(locked, "GET", "/server/status", headers=headers).status_code == 200

    def test_a_key_in_the_address_does_not_count(self, locked: Service) -> None:
        for name in ("key", "sde_key", "api_key", "token"):
            assert send(locked, "GET", f"/server/status?{name}={ADMIN}").status_code == 401

    def test_missing_and_wrong_look_the_same(self, folder: Path) -> None:
        with running(folder, "gateway", SDE_KEYS=RING) as service:
            details = {
                send(service, "GET", "/server/status", headers=headers).json()["detail"]
                for headers in (
                    {},
                    bearer("x" * 40),
                    bearer(ADMIN[:-1]),
                    bearer(ADMIN + "x"),
                    bearer(""),
                    {"Authorization": "Basic !!!"},
                    {"Authorization": ADMIN},
                    {"Authorization": "Digest x"},
                    {"Cookie": "sde_session_9090=x"},
                )
            }
        assert len(details) == 1

    def test_wrong_keys_are_counted_and_a_known_one_goes_on(self, folder: Path) -> None:
        with running(folder, "gateway", SDE_KEYS=RING) as service:
            known = send(service, "GET", "/server/status", headers=bearer(ADMIN))
            wrong = [
                send(service, "GET", "/server/status", headers=bearer(f"guess-{number}"))
                for number in range(MAX_FAILURES + 3)
            ]
            after = send(service, "GET", "/server/status", headers=bearer(ADMIN))
            log = service.output()
        assert [reply.status_code for reply in wrong] == [401] * MAX_FAILURES + [429] * 3
        assert 1 <= int(wrong[-1].headers["Retry-After"]) <= WINDOW_S + 1
        assert known.status_code == after.status_code == 200
        assert "guess-" not in log

    def test_without_keys_loopback_is_open_and_any_key_is_ignored(self, folder: Path) -> None:
        with running(folder, "gateway") as service:
            for headers in ({}, bearer("sk-none")):
                assert send(service, "GET", "/server/status", headers=headers).status_code == 200
            session = send(service, "GET", "/server/session").json()
        assert session == {"key": None, "scopes": ["admin", "generate"], "key_required": False}

    @pytest.mark.parametrize("trusted", ["", "127.0.0.1", "0.0.0.0/0"])
    def test_a_proxy_in_front_needs_a_key(self, folder: Path, trusted: str) -> None:
        names = (
            *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host"),
            *("Forwarded", "X-Real-IP", "Via", "CF-Connecting-IP", "X-Client-IP"),
        )
        with running(folder, "gateway", SDE_TRUSTED_PROXIES=trusted) as service:
            for name in names:
                value = "localhost" if name == "X-Forwarded-Host" else "203.0.113.9"
                reply = send(service, "GET", "/server/keys", headers={name: value})
                assert reply.status_code == 401, name
                assert "sde key add" in reply.json()["detail"]

    def test_everybody_without_a_key_is_no_admin(self, folder: Path) -> None:
        settings = {"SDE_HOST": "0.0.0.0", "SDE_ALLOW_ANONYMOUS": "1"}
        with running(folder, "gateway", **settings) as service:
            assert send(service, "GET", "/server/workers").status_code == 200
            body = {"name": "mallory", "scopes": ["admin"]}
            assert send(service, "POST", "/server/keys", json=body).status_code == 403
            assert send(service, "POST", "/server/models/demo/load").status_code == 403

    @pytest.mark.parametrize("secret", [None, "wrong" * 9])
    @pytest.mark.parametrize("path", ["/image/generate", "/healthz", "/no/such/path"])
    def test_a_stranger_takes_no_room_for_uploads(
        self, folder: Path, path: str, secret: str | None
    ) -> None:
        """The refusal comes with the header, while the body is still to come."""
        key = "" if secret is None else f"Authorization: Bearer {secret}\r\n"
        with running(folder, "gateway", SDE_KEYS=RING) as service:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: 9000000\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as raw:
                raw.sendall(head.encode())
                reply = raw.recv(65536)
        assert reply.startswith(b"HTTP/1.1 401 ") and b"www-authenticate: bearer" in reply.lower()

    def test_readiness_gives_its_reason_to_keys_alone(self, folder: Path) -> None:
        with running(folder, "gateway", SDE_KEYS=RING, SDE_KEY=ADMIN) as service:
            bare = send(service, "GET", "/readyz").json()["detail"]
            known = service.get("/readyz").json()["detail"]
        assert bare == "no worker can take a job" != known

    def test_a_stream_ends_with_its_key(self, locked: Service) -> None:
        made = locked.request("POST", "/server/keys", json={"name": "watcher"}).json()["key"]
        uuid = TestScopes.submit(locked, ADMIN)
        url = f"{locked.url}/image/jobs/{uuid}/events"
        with requests.get(url, headers=bearer(made), stream=True, timeout=60) as reply:
            locked.request("DELETE", "/server/keys/watcher")
            assert b"".join(reply.iter_content(64)).startswith(b"retry")


class TestScopes:
    def test_a_guest_manages_no_models_and_no_keys(self, locked: Service) -> None:
        for method, path in (
            ("POST", "/server/models/demo/load"),
            ("POST", "/server/models/demo/unload"),
            ("GET", "/server/keys"),
            ("POST", "/server/keys"),
            ("DELETE", "/server/keys/owner"),
        ):
            reply = send(locked, method, path, headers=bearer(GUEST))
            assert reply.status_code == 403, path
            assert "lacks the scope admin" in reply.json()["detail"]
        assert send(locked, "GET", "/server/workers", headers=bearer(GUEST)).status_code == 200

    def test_a_guest_deletes_its_own_jobs_alone(self, locked: Service) -> None:
        own = self.submit(locked, GUEST)
        other = self.submit(locked, ADMIN)
        assert locked.result(own)["owner"] == "guest"
        assert locked.result(other)["owner"] == "owner"
        assert locked.job(own)["owner"] == "guest"
        for path in (f"/image/generate?generation_uuid={other}", f"/image/jobs/{other}"):
            reply = send(locked, "DELETE", path, headers=bearer(GUEST))
            assert reply.status_code == 403 and "of the key owner" in reply.json()["detail"]
        path = "/image/generate?generation_uuid="
        assert send(locked, "DELETE", path + own, headers=bearer(GUEST)).status_code == 204
        assert send(locked, "DELETE", path + other, headers=bearer(ADMIN)).status_code == 204

    def test_two_keys_may_use_the_same_idempotency_key(self, locked: Service) -> None:
        first = self.submit(locked, ADMIN, **{"Idempotency-Key": "monday"})
        assert self.submit(locked, ADMIN, **{"Idempotency-Key": "monday"}) == first
        assert self.submit(locked, GUEST, **{"Idempotency-Key": "monday"}) != first

    @staticmethod
    def submit(service: Service, secret: str, **headers: str) -> str:
        def accepted() -> str:
            reply = send(
                service,
                "POST",
                "/image/generate",
                json={"prompt": "a", "seed": 1},
                headers=bearer(secret) | headers,
            )
            return str(reply.json()["generation_uuid"]) if reply.ok else ""

        return eventually(accepted, "the job is accepted")


class TestSession:
    def test_a_page_gets_a_cookie_that_no_script_and_no_other_site_can_use(
        self, locked: Service
    ) -> None:
        reply = send(locked, "POST", "/server/session", headers=bearer(GUEST))
        assert reply.status_code == 204 and not reply.content
        cookie = reply.headers["Set-Cookie"]
        assert GUEST not in cookie and cookie.startswith(f"sde_session_{locked.port}=")
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
        assert "Secure" not in cookie  # this service speaks plain HTTP
        browser = requests.Session()
        browser.post(locked.url + "/server/session", headers=bearer(GUEST), timeout=60)
        session = browser.get(locked.url + "/server/session", timeout=60).json()
        assert session == {"key": "guest", "scopes": ["generate"], "key_required": True}
        token = browser.cookies[f"sde_session_{locked.port}"]
        assert token not in (locked.data_dir / "sessions.json").read_text()
        browser.delete(locked.url + "/server/session", timeout=60)
        assert browser.get(locked.url + "/server/session", timeout=60).status_code == 401
        again = {"Cookie": f"sde_session_{locked.port}={token}"}
        stale = send(locked, "GET", "/server/session", headers=again)
        assert stale.status_code == 401
        assert f'sde_session_{locked.port}=""' in stale.headers["Set-Cookie"]

    def test_a_stale_session_shuts_nobody_out(self, folder: Path) -> None:
        with running(folder, "gateway", SDE_KEYS=RING) as service:
            cookie = {"Cookie": f"sde_session_{service.port}=stale"}
            for _ in range(2 * MAX_FAILURES):
                assert send(service, "GET", "/server/status", headers=cookie).status_code == 401
            assert send(service, "DELETE", "/server/session", headers=cookie).status_code == 204
            both = cookie | bearer(GUEST)
            assert send(service, "POST", "/server/session", headers=both).status_code == 204

    def test_a_session_outlives_a_restart_and_not_its_key(self, folder: Path) -> None:
        with running(folder, "gateway", SDE_KEYS=RING, SDE_KEY=ADMIN) as service:
            made = service.request("POST", "/server/keys", json={"name": "tablet"}).json()["key"]
            browser = requests.Session()
            browser.post(service.url + "/server/session", headers=bearer(made), timeout=60)
            service.kill("gateway")
            service.start("gateway")
            service.wait_answering()
            url = service.url + "/server/session"
            assert browser.get(url, timeout=60).json()["key"] == "tablet"
            service.request("DELETE", "/server/keys/tablet")
            assert browser.get(url, timeout=60).status_code == 401
            # A new key of the same name is another key.
            service.request("POST", "/server/keys", json={"name": "tablet"})
            browser.cookies.set(f"sde_session_{service.port}", "x")
            assert browser.get(url, timeout=60).status_code == 401


class TestManagement:
    def test_a_key_is_made_and_revoked_while_the_service_runs(self, locked: Service) -> None:
        made = locked.request("POST", "/server/keys", json={"name": "tablet"})
        assert made.status_code == 201 and made.headers["Cache-Control"] == "no-store"
        secret = made.json()["key"]
        assert send(locked, "GET", "/server/status", headers=bearer(secret)).status_code == 200
        assert "tablet" in {key["name"] for key in locked.get("/server/keys").json()}
        assert secret not in locked.get("/server/keys").text
        assert locked.request("POST", "/server/keys", json={"name": "tablet"}).status_code == 409
        assert locked.request("DELETE", "/server/keys/tablet").status_code == 204
        assert send(locked, "GET", "/server/status", headers=bearer(secret)).status_code == 401
        assert locked.request("DELETE", "/server/keys/tablet").status_code == 404
        assert locked.request("DELETE", "/server/keys/owner").status_code == 404

    @pytest.mark.parametrize(
        "body",
        [{}, {"name": ""}, {"name": "a b"}, {"name": "../x"}, {"name": "x" * 65}, {"name": 1}]
        + [{"name": "x", "scopes": scopes} for scopes in ([], ["root"], "admin")]
        + [{"name": "x", "more": 1}],
    )
    def test_a_bad_request_names_the_field(self, locked: Service, body: object) -> None:
        reply = locked.request("POST", "/server/keys", json=body)
        assert reply.status_code == 422 and reply.json()["errors"][0]["field"]

    def test_the_command_works_while_the_service_runs_and_while_it_does_not(
        self, folder: Path
    ) -> None:
        secret = self.command(
            folder, "add", "laptop", "--admin", "--data-dir", str(folder)
        ).stdout.strip()
        with running(folder, "gateway") as service:
            assert send(service, "GET", "/server/keys").status_code == 401
            reply = send(service, "GET", "/server/keys", headers=bearer(secret))
            assert [key["name"] for key in reply.json()] == ["laptop"]
            listed = json.loads(self.command(folder, "list", "--json").stdout)
            assert listed == reply.json()
            self.command(folder, "revoke", "laptop")
            assert send(service, "GET", "/server/keys", headers=bearer(secret)).status_code == 401
            # The last key has gone, and nothing has opened.
            assert send(service, "GET", "/server/status").status_code == 401
        again = self.command(folder, "revoke", "laptop", code=65)
        assert "no key has this name" in again.stderr
        assert "is not 1 to 64 letters" in self.command(folder, "add", "a b", code=64).stderr

    @staticmethod
    def command(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_module(folder, "sde_client", "key", *arguments)
        assert done.returncode == code, done.stderr
        return done


class TestListening:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
    def test_others_are_not_let_in_without_a_key(self, folder: Path, host: str) -> None:
        done = run_module(folder, "gateway", SDE_HOST=host)
        assert done.returncode == 78
        assert "sde key add NAME --admin" in done.stderr and "SDE_ALLOW_ANONYMOUS=1" in done.stderr

    @pytest.mark.parametrize("settings", [{"SDE_ALLOW_ANONYMOUS": "1"}, {"SDE_KEYS": RING}])
    def test_they_are_with_one_or_with_consent(
        self, folder: Path, settings: dict[str, str]
    ) -> None:
        assert (
            run_module(folder, "gateway", "--check", SDE_HOST="0.0.0.0", **settings).returncode == 0
        )

    def test_the_first_start_makes_a_key_and_a_link(self, folder: Path) -> None:
        with running(folder, SDE_HOST="0.0.0.0", SDE_ALLOWED_HOSTS="gpu-box") as own:
            own.start("supervisor")
            own.wait_answering()
            text = (folder / "supervisor.out").read_text()
            secret = text.partition("#key=")[2].split()[0]
            assert secret.startswith(keys.PREFIX)
            assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
            headers = bearer(secret) | {"Host": f"gpu-box:{own.port}"}
            assert send(own, "GET", "/server/keys", headers=headers).ok
            assert send(own, "GET", "/server/status").status_code == 401
        texts = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
        assert sum(secret in each for each in texts) == 1  # the terminal alone
        assert hashlib.sha256(secret.encode()).hexdigest() in (folder / "keys.json").read_text()
        assert (
            "#key="
            not in run_module(folder, "gateway", "--check", "--make-key", SDE_HOST="::").stdout
        )

    def test_a_start_that_fails_makes_no_key(self, folder: Path) -> None:
        with socket.socket() as other:
            other.bind(("0.0.0.0", 0))
            other.listen()
            port = str(other.getsockname()[1])
            settings = {"SDE_HOST": "0.0.0.0", "SDE_PORT": port}
            assert (
                run_module(folder, "gateway", "--check", "--make-key", **settings).returncode == 69
            )
        assert not (folder / "keys.json").exists()
        assert (
            "#key="
            in run_module(folder, "gateway", "--check", "--make-key", SDE_HOST="0.0.0.0").stdout
        )


def test_a_secret_is_in_no_answer_log_or_file(locked: Service) -> None:
    for path in ("/server/session", "/server/keys", "/server/workers", "/server/models"):
        assert ADMIN not in locked.get(path).text
    assert ADMIN not in locked.output() and GUEST not in locked.output()
    for path in locked.data_dir.rglob("*"):
        if path.is_file():
            assert ADMIN.encode() not in path.read_bytes()
    for process in locked.processes():
        assert ADMIN not in " ".join(process.cmdline())


class TestKeyFile:
    def test_it_round_trips_with_mode_0600(self, tmp_path: Path) -> None:
        ring = Keyring(tmp_path / "keys.json")
        assert ring.is_empty
        secret = ring.add("a", [Scope.GENERATE])
        matched = ring.match(secret)
        assert matched is not None and matched.principal.scopes == {Scope.GENERATE}
        assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
        with pytest.raises(KeyNameTaken):
            ring.add("a", list(Scope))
        with pytest.raises(UnknownKey):
            ring.revoke("b")
        with pytest.raises(ValidationError):
            ring.add("", list(Scope))
        ring.revoke("a")
        assert ring.match(secret) is None and not ring.is_empty

    @pytest.mark.parametrize("mode", [0o644, 0o660, 0o606, 0o640])
    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "keys.json"
        Keyring(path).add("a", list(Scope))
        path.chmod(mode)
        with pytest.raises(KeyFileInvalid, match="chmod 600"):
            Keyring(path)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "{}", "[]", "null", "\x00\xff", "{" * 2000),
            '{"version": 1, "keys": [{}]}',
            '{"version": 1, "keys": [], "more": 1}',
        ],
    )
    def test_a_damaged_file_is_refused_and_nothing_opens(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "keys.json"
        ring = Keyring(path)
        secret = ring.add("a", list(Scope))
        path.write_text(text, encoding="latin-1")
        assert ring.match(secret) is None and not ring.is_empty
        with pytest.raises(KeyFileInvalid, match="invalid"):
            Keyring(path)

    def test_a_link_and_a_folder_are_refused(self, tmp_path: Path) -> None:
        Keyring(tmp_path / "other.json").add("a", list(Scope))
        (tmp_path / "keys.json").symlink_to(tmp_path / "other.json")
        with pytest.raises(KeyFileInvalid):
            Keyring(tmp_path / "keys.json")
        with pytest.raises(KeyFileInvalid):
            key_file.change(tmp_path / "keys.json", list)
        (tmp_path / "folder.json").mkdir()
        with pytest.raises((KeyFileInvalid, OSError)):
            Keyring(tmp_path / "folder.json")

    @pytest.mark.parametrize(
        "text",
        [
            *("a", "a:short", "a:" + "x" * 513, ":" + "x" * 30, "a b:" + "x" * 30),
            *("a:" + "x" * 30 + ":root", "a:" + "x" * 19 + " y", f"a:{'x' * 30},a:{'y' * 30}"),
        ],
    )
    def test_the_environment_is_checked_and_its_secrets_stay_unsaid(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"entr") as caught:
            parse_environment(text)
        assert "xxxx" not in str(caught.value)


class TestFailureLimit:
    @pytest.fixture
    def now(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def limit(self, now: list[float]) -> FailureLimit:
        return FailureLimit(lambda: now[0])

    def test_the_window_moves(self, limit: FailureLimit, now: list[float]) -> None:
        for number in range(MAX_FAILURES):
            now[0] = number
            limit.check("192.0.2.1", None)
        self.refused(lambda: limit.check("192.0.2.1", None))
        limit.check("192.0.2.2", None)
        now[0] = WINDOW_S
        limit.check("192.0.2.1", None)
        self.refused(lambda: limit.check("192.0.2.1", None))

    def test_a_guess_at_the_limit_tells_nothing(self, limit: FailureLimit) -> None:
        for _ in range(MAX_FAILURES):
            limit.check("192.0.2.1", None)
        self.refused(lambda: limit.check("192.0.2.1", "owner"))
        limit.check("192.0.2.2", "owner")

    def test_an_address_of_ipv6_is_its_network(self, limit: FailureLimit) -> None:
        for number in range(MAX_FAILURES):
            limit.check(f"2001:db8::{number:x}", None)
        self.refused(lambda: limit.check("2001:db8::ffff", None))
        limit.check("2001:db8:0:1::1", None)

    def test_its_memory_is_bounded(self, limit: FailureLimit) -> None:
        for number in range(MAX_ADDRESSES + 100):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            limit.check(address, None)
            limit.check(address, f"key-{number}")
        assert len(limit._failures) <= MAX_ADDRESSES >= len(limit._successes)

    @staticmethod
    def refused(check: Callable[[], None]) -> None:
        with pytest.raises(TooManyWrongKeys):
            check()
