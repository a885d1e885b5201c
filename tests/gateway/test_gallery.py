"""The routes of a gallery: search, pages, days, thumbnails, stars, the trash, zip files."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.service import Service, eventually, running

ABSENT = "00000000-0000-4000-8000-000000000001"
LIGHTHOUSE, CIRCLE, FAILS = "a Lighthouse at dusk", "a red circle, naïve", "a broken thing"

JSON = dict[str, Any]


def make(service: Service, prompt: str, **parameters: Any) -> str:
    uuid = service.submit(prompt, queue=True, **parameters)
    service.results(uuid)
    return uuid


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service with three jobs and four images. Tests leave it as it was."""
    folder = tmp_path_factory.mktemp("g")
    with running(folder, "gateway", "gpu_worker") as service:
        uuids = {
            "first": make(service, LIGHTHOUSE, seed=7, batch_id="night", client_name="tester"),
            "second": make(service, CIRCLE, seed=9, width=128, num_images_per_prompt=2),
            "third": make(service, "lighthouses and boats", seed=7, negative_prompt="circle"),
        }
        yield service, uuids


def search(service: Service, **query: Any) -> JSON:
    reply = service.get("/image/results", params=query)
    assert reply.status_code == 200, reply.text
    body: JSON = reply.json()
    return body


def names(service: Service, **query: Any) -> list[str]:
    return [each["name"] for each in search(service, **query)["results"]]


def post(service: Service, path: str, *images: str, **more: Any) -> requests.Response:
    return service.request("POST", path, json={"images": list(images), **more})


Gallery = tuple[Service, dict[str, str]]


class TestSearch:
    def test_the_newest_job_comes_first_and_its_images_in_order(self, gallery: Gallery) -> None:
        service, uuids = gallery
        page = search(service)
        assert (page["total"], page["offset"], page["next"]) == (4, 0, None)
        order = [f"{uuids['third']}-1", f"{uuids['second']}-1", f"{uuids['second']}-2"]
        assert [each["name"] for each in page["results"]] == [*order, f"{uuids['first']}-1"]

    def test_an_item_has_what_a_gallery_shows(self, gallery: Gallery) -> None:
        service, uuids = gallery
        item = search(service, q="lighthouse dusk")["results"][0]
        record = service.result(uuids["first"])
        same = ("created_time", "ended_time", "prompt", "negative_prompt", "seed", "width")
        assert {name: item[name] for name in same} == {name: record[name] for name in same}
        assert (item["batch_id"], item["client_name"]) == ("night", "tester")
        assert (item["star"], item["trashed_time"], item["state"]) == (False, None, "succeeded")

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"q": "lighthouse"}, ["third", "first"]),
            ({"q": "LIGHTHOUSE dusk"}, ["first"]),
            ({"q": "lighthouse "}, ["first"]),
            ({"q": "ligh"}, ["third", "first"]),
            ({"q": '"at dusk"'}, ["first"]),
            ({"q": '"dusk at"'}, []),
            ({"q": "naive"}, ["second", "second"]),
            ({"q": '" OR * NEAR( -'}, []),
            ({"q": "!!!"}, ["third", "second", "second", "first"]),
            ({"seed": 7}, ["third", "first"]),
            ({"seed": 10}, ["second"]),
            ({"size": "128x64"}, ["second", "second"]),
            ({"batch": "night"}, ["first"]),
            ({"client": "tester", "q": "boats"}, []),
            ({"state": "failed,canceled"}, []),
            ({"state": "succeeded", "limit": 1}, ["third"]),
            ({"after": "2999-01-01"}, []),
            ({"before": "2999-01-01T00:00:00Z", "seed": 9}, ["second"]),
            ({"star": "true"}, []),
            ({"trash": "true"}, []),
            ({"owner": "nobody"}, []),
            ({"lora": "ink"}, []),
        ],
    )
    def test_filters(self, gallery: Gallery, query: JSON, found: list[str]) -> None:
        service, uuids = gallery
        by_uuid = {uuid: name for name, uuid in uuids.items()}
        assert [by_uuid[each[:36]] for each in names(service, **query)] == found

    def test_pages_by_position_and_by_cursor_are_the_same(self, gallery: Gallery) -> None:
        service, _ = gallery
        everything = names(service)
        by_position = [names(service, offset=at, limit=1) for at in range(5)]
        assert list(itertools.chain(*by_position)) == everything
        by_cursor: list[str] = []
        query: JSON = {"limit": 1}
        while True:
            page = search(service, **query)
            assert page["total"] == 4
            by_cursor += [each["name"] for each in page["results"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert by_cursor == everything

    def test_fields_select_members_even_of_the_record(self, gallery: Gallery) -> None:
        service, uuids = gallery
        page = search(service, fields="name,pixels_sha256,nothing", q="dusk")
        digest = service.result(uuids["first"])["pixels_sha256"]
        name = f"{uuids['first']}-1"
        assert page["results"] == [{"name": name, "pixels_sha256": digest, "nothing": None}]
        assert search(service, fields="seed", q="dusk")["results"] == [{"seed": 7}]

    def test_days_count_what_a_search_finds(self, gallery: Gallery) -> None:
        service, _ = gallery
        days = service.get("/image/results/days").json()["days"]
        assert sum(count for _, count in days) == 4 and len(days) <= 2
        found = service.get("/image/results/days", params={"q": "boats"}).json()["days"]
        assert [count for _, count in found] == [1]

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "0"},
            {"offset": "-1"},
            {"size": "big"},
            {"after": "yesterday"},
            {"state": "done"},
            {"star": "yes"},
            {"fields": "data"},
            {"fields": ""},
            {"cursor": "x"},
            {"words": "x"},
            {"q": "x" * 501},
            {"cursor": f"1.{ABSENT}.0", "offset": "1"},
        ],
    )
    def test_a_wrong_query_is_400_and_names_its_parameter(
        self, gallery: Gallery, query: JSON
    ) -> None:
        reply = gallery[0].get("/image/results", params=query)
        assert reply.status_code == 400
        assert any(name in reply.json()["detail"] for name in query)


class TestFiles:
    def test_a_thumbnail_is_made_once_and_may_be_cached(self, gallery: Gallery) -> None:
        service, uuids = gallery
        path = f"/image/files/{uuids['second']}-2.webp"
        reply = service.get(path, params={"px": 64})
        image = Image.open(io.BytesIO(reply.content))
        assert (image.format, image.size) == ("WEBP", (64, 32))
        assert "immutable" in reply.headers["Cache-Control"]
        stored = list((service.data_dir / "thumbnails").rglob("*.64.webp"))
        assert [each.read_bytes() for each in stored] == [reply.content]
        again = service.get(
            path, params={"px": 64}, headers={"If-None-Match": reply.headers["ETag"]}
        )
        assert again.status_code == 304
        other = service.get(path).headers["ETag"]
        assert other != reply.headers["ETag"]

    def test_a_thumbnail_is_never_larger_than_its_image(self, gallery: Gallery) -> None:
        service, uuids = gallery
        reply = service.get(f"/image/files/{uuids['second']}.webp", params={"px": 1024})
        assert Image.open(io.BytesIO(reply.content)).size == (128, 64)

    @pytest.mark.parametrize(
        ("name", "px", "status"),
        [
            ("{}.webp", "63", 400),
            ("{}.webp", "1025", 400),
            ("{}.png", "64", 400),
            ("{}-9.webp", "64", 404),
            (f"{ABSENT}.webp", "64", 404),
            ("{}.gif", "64", 400),
        ],
    )
    def test_what_is_no_thumbnail(self, gallery: Gallery, name: str, px: str, status: int) -> None:
        service, uuids = gallery
        path = f"/image/files/{name.format(uuids['first'])}"
        assert service.get(path, params={"px": px}).status_code == status

    def test_a_download_has_a_speaking_name(self, gallery: Gallery) -> None:
        service, uuids = gallery
        query = {"download": "true"}
        plain = service.get(f"/image/files/{uuids['first']}.png", params=query)
        header = plain.headers["Content-Disposition"]
        assert (
            header.startswith("attachment; filename=") and "-a-lighthouse-at-dusk-7.png" in header
        )
        other = service.get(f"/image/files/{uuids['second']}.png", params=query)
        assert "a-red-circle-na%C3%AFve-9.png" in other.headers["Content-Disposition"]
        assert (
            "Content-Disposition" not in service.get(f"/image/files/{uuids['first']}.png").headers
        )

    def test_an_archive_has_each_image_under_its_own_name(self, gallery: Gallery) -> None:
        service, uuids = gallery
        images = [uuids["first"], f"{uuids['second']}-1", f"{uuids['second']}-2", uuids["first"]]
        reply = post(service, "/image/zip", *images, f"{uuids['first']}-7", ABSENT)
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "application/zip")
        with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
            assert archive.testzip() is None
            files = archive.namelist()
            first = archive.read(files[0])
        assert len(files) == len(set(files)) == 3
        assert first == service.get(f"/image/files/{uuids['first']}.png").content

    def test_an_archive_of_nothing_is_404(self, gallery: Gallery) -> None:
        assert post(gallery[0], "/image/zip", ABSENT).status_code == 404


@pytest.mark.parametrize("path", ["star", "trash", "restore", "delete", "zip"])
@pytest.mark.parametrize("body", [{}, {"images": []}, {"images": ["x"]}, {"images": [1]}, [], None])
def test_a_wrong_list_of_images_is_422(gallery: Gallery, path: str, body: object) -> None:
    reply = gallery[0].request("POST", f"/image/{path}", json=body)
    assert reply.status_code in (400, 415, 422)


class TestLabels:
    def test_a_star_is_seen_and_survives_kill_and_rebuild(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            uuid = make(service, "a", num_images_per_prompt=2)
            assert post(service, "/image/star", f"{uuid}-2", ABSENT).json() == {"changed": 1}
            assert post(service, "/image/star", f"{uuid}-2").json() == {"changed": 0}
            assert names(service, star="true") == [f"{uuid}-2"]
            for path in (None, folder / "disk_backups" / "index.sqlite"):
                service.kill("gateway")
                if path is not None:
                    path.unlink()
                service.start("gateway")
                service.wait_answering()
                assert names(service, star="true") == [f"{uuid}-2"]
            assert post(service, "/image/star", f"{uuid}-2", star=False).json() == {"changed": 1}
            assert names(service, star="false") == [f"{uuid}-1", f"{uuid}-2"]

    def test_the_trash_hides_a_job_from_everyone_and_gives_it_back(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            uuid = make(service, "a", num_images_per_prompt=2)
            query = {"generation_uuid": uuid}
            assert service.request("DELETE", "/image/generate", params=query).status_code == 204
            for _ in range(2):
                assert service.request("DELETE", "/image/generate", params=query).status_code == 410
                assert service.get("/image/generate", params=query).json() == []
                assert service.get("/image/generate").json() == []
                assert service.get("/image/generate", params={"limit": 5}).json() == []
                assert service.get(f"/image/jobs/{uuid}").status_code == 410
                assert service.get(f"/image/files/{uuid}.png").status_code == 410
                assert names(service) == []
                assert names(service, trash="true") == [f"{uuid}-1", f"{uuid}-2"]
                assert service.get(f"/image/files/{uuid}.webp").status_code == 200
                path = f"/image/files/{uuid}.png"
                assert service.get(path, params={"trash": "true"}).status_code == 200
                service.kill("gateway")
                service.start("gateway")
                service.wait_answering()
            assert post(service, "/image/restore", uuid, f"{uuid}-2").json() == {"changed": 2}
            assert len(service.results(uuid)) == 2 and names(service, trash="true") == []
            assert service.job(uuid)["state"] == "succeeded"

    def test_one_image_of_a_job_is_deleted_for_good(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_TRASH_DAYS="0") as service:
            uuid = make(service, "a", num_images_per_prompt=3)
            service.get(f"/image/files/{uuid}-2.webp")
            assert post(service, "/image/trash", f"{uuid}-2").json() == {"changed": 1}
            assert list((folder / "thumbnails").rglob("*.webp")) == []
            for _ in range(2):
                assert [r["image_index"] for r in service.results(uuid)] == [0, 2]
                assert service.get(f"/image/files/{uuid}-2.png").status_code == 410
                assert names(service) == [f"{uuid}-1", f"{uuid}-3"]
                assert post(service, "/image/restore", f"{uuid}-2").json() == {"changed": 0}
                service.kill("gateway")
                (folder / "disk_backups" / "index.sqlite").unlink()
                service.start("gateway")
                service.wait_available()
            assert post(service, "/image/trash", uuid, f"{uuid}-3").json() == {"changed": 2}
            assert service.get(f"/image/jobs/{uuid}").status_code == 410

    def test_a_request_at_once_deletes_although_there_is_a_trash(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            uuid, other = make(service, "a"), make(service, "b")
            query = {"generation_uuid": uuid, "trash": "false"}
            assert service.request("DELETE", "/image/generate", params=query).status_code == 204
            assert post(service, "/image/trash", other).json() == {"changed": 1}
            assert post(service, "/image/delete", other).json() == {"changed": 1}
            assert names(service, trash="true") == names(service) == []

    @pytest.mark.parametrize("trashed", [slice(1), slice(None)], ids=["some", "all"])
    def test_a_request_at_once_deletes_what_is_in_the_trash(
        self, folder: Path, trashed: slice
    ) -> None:
        guest = {"headers": {"Authorization": "Bearer guest-key-of-this-test"}}
        keys = "owner:admin-key-of-this-test,guest:guest-key-of-this-test:generate"
        settings = {"SDE_KEYS": keys, "SDE_KEY": "guest-key-of-this-test"}
        with running(folder, "gateway", "gpu_worker", **settings) as service:
            uuid = make(service, "a", num_images_per_prompt=2)
            post(service, "/image/trash", *[f"{uuid}-1", f"{uuid}-2"][trashed])
            query = {"generation_uuid": uuid, "trash": "false"}
            reply = service.request("DELETE", "/image/generate", params=query, **guest)
            assert reply.status_code == 204
            assert names(service, trash="true") == names(service) == []
            assert post(service, "/image/restore", f"{uuid}-1").json() == {"changed": 0}

    def test_what_is_on_no_full_disk_has_not_happened(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            uuid = make(service, "a")
            path = folder / "journal" / "labels.jsonl"
            path.mkdir()
            reply = post(service, "/image/trash", uuid)
            assert reply.status_code == 507 and names(service) == [f"{uuid}-1"]
            path.rmdir()
            assert post(service, "/image/trash", uuid).json() == {"changed": 1}


def test_a_key_changes_its_own_images_alone(folder: Path) -> None:
    admin, guest = "admin-key-of-this-test", "guest-key-of-this-test"
    keys = f"owner:{admin},guest:{guest}:generate"
    settings = {"SDE_KEYS": keys, "SDE_KEY": admin}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        uuid = make(service, "a")
        as_guest = {"headers": {"Authorization": f"Bearer {guest}"}}
        for path in ("star", "trash", "restore", "delete"):
            reply = service.request("POST", f"/image/{path}", json={"images": [uuid]}, **as_guest)
            assert (path, reply.status_code) == (path, 403)
        assert service.get("/image/results", **as_guest).json()["total"] == 1
        assert names(service, owner="owner") == [f"{uuid}-1"]
        for path in ("/events", "/image/results", "/server/fields"):
            assert requests.get(service.url + path, timeout=30).status_code == 401
        assert post(service, "/image/trash", uuid).json() == {"changed": 1}


class TestQueue:
    def test_a_bare_request_gets_429_and_one_that_asks_waits(self, folder: Path) -> None:
        with running(
            folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
        ) as service:
            runs = service.submit("a")
            reply = service.post({"prompt": "b"})
            assert reply.status_code == 429 and "queue" in reply.json()["detail"]
            waits = service.submit("c", queue=True, batch_id="x")
            assert service.job(waits)["state"] == "queued"
            service.release()
            assert service.result(runs)["errors"] == service.result(waits)["errors"] == []
            assert service.result(waits)["batch_id"] == "x"

    @pytest.mark.parametrize(
        "options",
        [
            {"queue": 1},
            {"batch_id": ""},
            {"batch_id": "x" * 65},
            {"client_name": "a\nb"},
            {"client_name": " "},
            {"batch_id": 5},
        ],
    )
    def test_a_wrong_option_is_422_and_named(self, gallery: Gallery, options: JSON) -> None:
        reply = gallery[0].post({"prompt": "a", **options})
        assert reply.status_code == 422
        assert [each["field"] for each in reply.json()["errors"]] == list(options)


def test_fields_and_aliases_are_listed(gallery: Gallery) -> None:
    service, _ = gallery
    fields = service.get("/server/fields").json()
    assert fields["width"]["multiple_of"] == 8 and fields["prompt"]["required"] is True
    assert fields["queue"]["type"] == "boolean" and fields["image"]["type"] == "image"
    assert all(each["help"].endswith(".") for each in fields.values())


class Reader(threading.Thread):
    """A page: it collects the events until it is closed."""

    def __init__(self, service: Service, last_id: str = "") -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_connection(("127.0.0.1", service.port))
        header = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        text = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n"
        self.socket.sendall(text.encode())
        self.events: list[tuple[str, Any, str]] = []
        self.ready = threading.Event()
        self.ended = False
        self.start()
        assert self.ready.wait(30)

    def run(self) -> None:
        """Each message is in a chunk of its own, whose frame has lines that end with CR LF."""
        fields: dict[str, str] = {}
        with contextlib.suppress(OSError), self.socket.makefile("rb") as lines:
            for line in lines:
                key, colon, value = line.decode().rstrip("\n").partition(": ")
                if line == b"\n":
                    if "event" in fields:
                        data = json.loads(fields["data"])
                        self.events.append((fields["event"], data, fields["id"]))
                    fields = {}
                    self.ready.set()
                elif colon and not line.endswith(b"\r\n"):
                    fields[key] = value
        self.socket.close()
        self.ended = True

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self.socket.shutdown(socket.SHUT_RDWR)
        self.join(30)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]

    def wait(self, name: str) -> Any:
        eventually(lambda: name in self.names(), f"an event {name}, not only {self.names()}", 30)
        return next(data for each, data, _ in self.events if each == name)


class TestEvents:
    def test_a_page_learns_of_jobs_results_and_changes(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            page = Reader(service)
            uuid = service.submit("a" * 300, num_images_per_prompt=2)
            assert page.wait("result") == {"uuid": uuid, "state": "succeeded", "num_images": 2}
            assert len(service.results(uuid)) == 2
            job = page.wait("job")
            assert job["uuid"] == uuid and job["prompt"] == "a" * 200
            assert job.keys() >= service.job(uuid).keys()
            post(service, "/image/star", uuid)
            post(service, "/image/trash", f"{uuid}-2")
            eventually(lambda: page.names().count("change") == 2, "both changes")
            changes = [data for name, data, _ in page.events if name == "change"]
            assert changes == [
                {"images": [f"{uuid}-1"], "star": True},
                {"images": [f"{uuid}-2"], "trash": True},
            ]
            ids = [each for _, _, each in page.events]
            again = Reader(service, ids[0])
            eventually(lambda: len(again.events) == len(ids) - 1, "the events after the first")
            assert [each for _, _, each in again.events] == ids[1:]
            again.close()
            service.kill("gpu_worker")
            eventually(
                lambda: (
                    ("workers", "unreachable")
                    in [
                        (name, data[0]["state"])
                        for name, data, _ in page.events
                        if name == "workers"
                    ]
                ),
                "the page learns that the worker is away",
            )
            service.kill("gateway", signal.SIGTERM)
            eventually(lambda: page.ended, "the stream ends with the process")

    def test_an_unknown_id_is_told_to_fetch_again(self, gallery: Gallery) -> None:
        service, _ = gallery
        for last_id in ("x", "1.1", "0.0", "9" * 100):
            page = Reader(service, last_id)
            assert page.wait("resync") == {}
            page.close()

    def test_many_pages_hold_no_thread(self, gallery: Gallery) -> None:
        service, _ = gallery
        pages = [Reader(service) for _ in range(100)]
        started = time.monotonic()
        uuid = make(service, "for all pages")
        for page in pages:
            assert page.wait("result")["uuid"] == uuid
        assert time.monotonic() - started < 30
        for page in pages:
            page.close()
        query = {"generation_uuid": uuid, "trash": "false"}
        assert service.request("DELETE", "/image/generate", params=query).status_code == 204

    def test_a_request_behind_a_stream_is_not_answered(self, gallery: Gallery) -> None:
        service, _ = gallery
        ask = f"GET %s HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), 30) as line:
            line.sendall((ask % "/events" + ask % "/healthz" + ask % "/events").encode())
            text = b""
            while b"retry: 1000" not in text:
                text += line.recv(65536)
            line.sendall((ask % "/healthz").encode())
            uuid = make(service, "behind a stream")
            while b"event: result" not in text:
                text += line.recv(65536)
        assert text.count(b"HTTP/1.1") == 1 and b'"ok"' not in text
        query = {"generation_uuid": uuid, "trash": "false"}
        assert service.request("DELETE", "/image/generate", params=query).status_code == 204

    def test_an_address_may_have_more_pages_than_idle_connections(self, folder: Path) -> None:
        settings = {"SDE_MAX_WAITING_PER_ADDRESS": "5", "SDE_MAX_CONNECTIONS": "60"}
        with running(folder, "gateway", "gpu_worker", **settings) as service:
            service.wait_available()
            pages = [Reader(service) for _ in range(20)]
            make(service, "for all pages")
            for page in pages:
                assert page.wait("result")["state"] == "succeeded"
            for page in pages:
                page.close()

    def test_head_opens_no_stream(self, gallery: Gallery) -> None:
        reply = gallery[0].request("HEAD", "/events")
        assert reply.status_code == 200 and reply.headers["Content-Type"] == "text/event-stream"
