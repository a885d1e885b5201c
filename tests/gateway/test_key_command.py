"""`sde key` and the start of a service: which keys are changed, and where that is said."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.access import key_file, keys
from gateway.access.keyring import Keyring, parse_environment
from gateway.access.principal import Scope
from gateway.errors import TooManyKeys
from gateway.settings import GatewaySettings, _own_addresses
from gpu_worker.settings import load
from gpu_worker.store.durable import StoreTooNew
from tests.support.service import ROOT, environment, free_port, run_module, running

ADMIN = "an-admins-secret-canary-1"


def key(
    url: str, *arguments: str, cwd: Path, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`sde key` as a person runs it in a folder."""
    options = environment(cwd, 1, SDE_URL=url) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    del options["SDE_DATA_DIR"], options["SDE_PORT"], options["SDE_PIPELINE"], options["SDE_PYTHON"]
    done = subprocess.run(
        [sys.executable, "-m", "sde_client", "key", *arguments],
        cwd=cwd,
        env=options | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


class TestWhichKeys:
    @pytest.mark.parametrize("action", [["add", "foo"], ["list"], ["revoke", "foo"]])
    def test_a_folder_that_is_no_store_stays_empty(self, tmp_path: Path, action: list[str]) -> None:
        for variables in ({}, {"SDE_DATA_DIR": str(tmp_path / "data")}):
            done = key(nowhere(), *action, cwd=tmp_path, code=66, **variables)
            assert not done.stdout and "--data-dir" in done.stderr
            assert f"{tmp_path / 'data'} is no data folder" in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("action", [["list"], ["revoke", "foo"]])
    def test_looking_creates_nothing(self, tmp_path: Path, action: list[str]) -> None:
        new = ["--data-dir", str(tmp_path / "new")]
        key(nowhere(), *action, *new, cwd=tmp_path, code=66)
        (tmp_path / "data" / "disk_backups").mkdir(parents=True)
        key(nowhere(), *action, cwd=tmp_path, code=0 if action == ["list"] else 65)
        assert [path.name for path in tmp_path.rglob("*")] == ["data", "disk_backups"]

    def test_a_named_folder_is_made_and_then_a_store(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "keys.json"
        named = key(nowhere(), "add", "a", "--data-dir", "data", cwd=tmp_path)
        assert named.stdout.startswith(keys.PREFIX) and f"the key a is in {path}" in named.stderr
        assert f"b is in {path}" in key(nowhere(), "add", "b", cwd=tmp_path).stderr
        revoked = key(nowhere(), "revoke", "a", cwd=tmp_path)
        assert revoked.stderr == f"the key a is revoked in {path}\n" and not revoked.stdout
        listed = key(nowhere(), "list", cwd=tmp_path).stdout
        assert [line.split("\t")[:2] for line in listed.splitlines()] == [["b", "generate"]]

    def test_a_service_that_admits_us_is_changed_and_not_the_folder(self, folder: Path) -> None:
        """As through a tunnel: the address is loopback, and a store of another service is here."""
        (folder / "data" / "disk_backups").mkdir(parents=True)
        with running(folder / "far", "gateway") as service:
            done = key(service.url, "add", "a", "--admin", cwd=folder)
            assert f"the key a is one of {service.url}" in done.stderr
            secret = {"SDE_KEY": done.stdout.strip()}
            key(service.url, "add", "b", cwd=folder, **secret)
            named = json.loads(key(service.url, "list", "--json", cwd=folder, **secret).stdout)
            assert [each["name"] for each in named] == ["a", "b"]
            done = key(service.url, "revoke", "b", cwd=folder, **secret)
            assert done.stderr == f"the key b is revoked at {service.url}\n"
            link = f"{service.url}/#key={secret['SDE_KEY']}"
            assert key(link, "list", cwd=folder).stdout.startswith("a\tadmin,generate\t20")
            # It needs a key now, and the folder here is not its own.
            done = key(service.url, "add", "c", cwd=folder, code=66)
            assert not done.stdout and f"{service.url} needs a key" in done.stderr
            own = key(service.url, "add", "c", "--data-dir", "data", cwd=folder)
            assert f"in {folder / 'data' / 'keys.json'}" in own.stderr
        assert [each.name for each in Keyring(folder / "far" / "keys.json").all()] == ["a"]
        key(service.url, "list", cwd=folder, code=69, **secret)

    def test_the_owner_needs_no_key_beside_the_service(self, folder: Path) -> None:
        with running(folder / "data", "gateway", SDE_KEYS=f"owner:{ADMIN}") as service:
            done = key(service.url, "add", "a", cwd=folder)
            assert f"in {folder / 'data' / 'keys.json'}" in done.stderr
            named = service.request("GET", "/server/keys", headers=bearer()).json()
        assert [each["name"] for each in named] == ["owner", "a"]

    def test_another_machine_is_never_this_folder(self, tmp_path: Path) -> None:
        (tmp_path / "data" / "disk_backups").mkdir(parents=True)
        key("http://nope.invalid:9090", "add", "a", cwd=tmp_path, code=69)
        assert not (tmp_path / "data" / "keys.json").exists()


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {ADMIN}"}


class TestReasons:
    def test_an_unsafe_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data").chmod(0o777)
        done = key(nowhere(), "add", "a", "--data-dir", "data", cwd=tmp_path, code=73)
        assert "None" not in done.stderr and f"chmod 700 {tmp_path / 'data'}" in done.stderr

    def test_a_file_in_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "data").touch()
        done = key(nowhere(), "add", "a", "--data-dir", "data", cwd=tmp_path, code=73)
        assert "File exists" in done.stderr

    def test_a_full_file_names_its_limit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "data" / "keys.json"
        path.parent.mkdir()
        many = [
            keys.make_key(f"k{number}", f"{number:030}", list(Scope))
            for number in range(key_file.MAX_KEYS)
        ]
        key_file.change(path, lambda _: many)
        content = path.read_bytes()
        with pytest.raises(TooManyKeys, match="1000 keys, which is the limit"):
            Keyring(path).add("x", list(Scope))
        done = key(nowhere(), "add", "x", cwd=tmp_path, code=65)
        assert "1000 keys, which is the limit" in done.stderr and path.read_bytes() == content
        Keyring(path).revoke("k0")
        assert Keyring(path).add("x", list(Scope))

    def test_a_newer_file_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "keys.json"
        ring = Keyring(path)
        path.parent.mkdir()
        secret = ring.add("a", list(Scope))
        path.write_text('{"version": 2, "rings": []}')
        assert ring.match(secret) is None and not ring.is_empty
        with pytest.raises(StoreTooNew, match="has the version 2, and this version reads 1"):
            Keyring(path)
        for command in ([], ["--check"]):
            done = run_module(path.parent, "gateway", *command)
            assert done.returncode == 69 and "from a newer version" in done.stderr
        done = key(nowhere(), "add", "b", cwd=tmp_path, code=69)
        assert f"{path} is from a newer version of this program" in done.stderr
        assert path.read_text() == '{"version": 2, "rings": []}'

    @pytest.mark.parametrize("version", ['"2"', "0", "null", "1.5"])
    def test_a_strange_version_is_invalid(self, tmp_path: Path, version: str) -> None:
        (tmp_path / "keys.json").write_text(f'{{"version": {version}, "keys": []}}')
        (tmp_path / "keys.json").chmod(0o600)
        with pytest.raises(key_file.KeyFileInvalid, match="version is not what version 1 writes"):
            key_file.read(tmp_path / "keys.json")

    SECRETS = (f"{keys.PREFIX}canary-canary-canary-canary", "canary/canary=canary+canary")

    @pytest.mark.parametrize("secret", SECRETS)
    @pytest.mark.parametrize(
        "form",
        [
            *("{}", "{}:laptop", "{}:a-name-of-a-laptop-here", "{}:a-name-of-a-laptop-here:admin"),
            *("laptop:{}:{}", "laptop:a-long-enough-text:{}", "laptop:x:{}", ":{}", "{}:{}"),
            *("a b:{}", "laptop:{} {}", "laptop:{}:generate:{}", "laptop:{}\t", "é:{}"),
        ],
    )
    def test_no_message_quotes_a_secret(self, secret: str, form: str) -> None:
        text = form.replace("{}", secret)
        values = {"SDE_KEYS": text}
        with pytest.raises(ValueError, match="entr") as caught:
            assert not parse_environment(text) or form.endswith("\t")
            raise ValueError("entry without a fault")  # the tab was stripped
        with pytest.raises(ValueError, match="SDE_KEYS") as loading:
            load(GatewaySettings, values)
            raise ValueError("SDE_KEYS without a fault")
        assert "canary" not in str(caught.value) + str(loading.value)


class TestStart:
    def test_a_refusal_advises_an_admins_key(self, tmp_path: Path) -> None:
        done = run_module(tmp_path, "gateway", SDE_HOST="0.0.0.0")
        assert done.returncode == 78 and "`sde key add NAME --admin`" in done.stderr

    def test_the_first_links_have_the_name_and_the_address(self, tmp_path: Path) -> None:
        lines = run_module(
            tmp_path, "gateway", "--check", "--make-key", SDE_HOST="0.0.0.0"
        ).stdout.splitlines()
        links = [re.fullmatch(r"  http://(.+):\d+/#key=(\S+)", line) for line in lines[2:]]
        places = [link[1] for link in links if link]
        assert lines[0].startswith(f"http://{socket.gethostname()}:") and len(lines) > 2
        assert places[0] == socket.gethostname() and len(places) == len(lines) - 2
        assert all(re.fullmatch(r"[\d.]+|\[[\da-f:]+\]", place) for place in places[1:])
        assert len({link[2] for link in links if link}) == 1

    @pytest.mark.parametrize(
        ("routes", "places"),
        [
            ("Iface\tDestination\nlan0\t00000000\n", ["192.0.2.7", "[2001:db8::7]"]),
            ("", ["192.0.2.7", "[2001:db8::7]", "172.17.0.1"]),
            ("gone\t00000000\n", ["192.0.2.7", "[2001:db8::7]", "172.17.0.1"]),
            (None, ["192.0.2.7", "[2001:db8::7]", "172.17.0.1"]),
        ],
    )
    def test_the_addresses_of_the_machine_are_those_of_its_route(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routes: str | None, places: list[str]
    ) -> None:
        cards = {
            "lo": ["127.0.0.1", "::1"],
            "lan0": ["fe80::7%lan0", "2001:db8::7", "192.0.2.7"],
            "docker0": ["172.17.0.1"],
        }
        known = {
            card: [
                SimpleNamespace(
                    address=each, family=socket.AF_INET6 if ":" in each else socket.AF_INET
                )
                for each in addresses
            ]
            for card, addresses in cards.items()
        }
        monkeypatch.setattr("psutil.net_if_addrs", lambda: known)
        if routes is not None:
            (tmp_path / "route").write_text(routes)
        monkeypatch.setattr(_own_addresses, "__defaults__", (tmp_path / "route",))
        urls = [f"http://{each}:9090" for each in (socket.gethostname(), *places)]
        assert load(GatewaySettings, {"SDE_HOST": "0.0.0.0"}).public_urls == urls
        assert load(GatewaySettings, {"SDE_HOST": "gpu-box"}).public_urls == ["http://gpu-box:9090"]

    def test_a_second_start_says_that_there_are_keys(self, folder: Path) -> None:
        for _ in range(2):
            with running(folder, SDE_HOST="0.0.0.0") as own:
                own.start("supervisor")
                own.wait_answering()
            shown = (folder / "supervisor.out").read_text()
            (folder / "supervisor.out").unlink()
        assert shown.splitlines()[0].startswith(f"The service will be at http://{os.uname()[1]}:")
        assert shown.splitlines()[1:3] == [
            "It has keys. This command makes another one:",
            f"  sde key add NAME --data-dir '{folder}'",
        ]
        assert run_module(folder, "gateway", "--check").stdout.count("\n") == 1
