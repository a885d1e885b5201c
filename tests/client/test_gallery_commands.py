"""The commands of a gallery: search, the trash, the page; and a server without them."""

from __future__ import annotations

import json
from pathlib import Path

from sde_client import Client

from tests.support.command import NEVER, sde
from tests.support.service import running
from tests.support.stub_gateway import answering

JSON_TYPE = {"Content-Type": "application/json"}


def test_words_search_and_the_trash_gives_back(folder: Path, tmp_path: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        prompts = ("a lighthouse", "a red circle", "a lighthouse at night")
        uuids = [service.submit(prompt, queue=True, seed=3) for prompt in prompts]
        for uuid in uuids:
            service.results(uuid)
        rows = [row.split("\t") for row in sde(service.url, "list", "light").stdout.splitlines()]
        assert [(row[0], row[5]) for row in rows] == [
            (f"{uuids[0]}-1", prompts[0]),
            (f"{uuids[2]}-1", prompts[2]),
        ]
        listed = json.loads(sde(service.url, "list", "at", "night", "--json").stdout)
        assert [each["name"] for each in listed] == [f"{uuids[2]}-1"]
        assert sde(service.url, "delete", uuids[0]).returncode == 0
        assert sde(service.url, "save", uuids[0], cwd=tmp_path).returncode == 66
        short = uuids[0].replace("-", "").upper()
        assert sde(service.url, "restore", short).stdout == "restored 1\n"
        assert sde(service.url, "save", uuids[0], cwd=tmp_path).returncode == 0
        assert sde(service.url, "delete", uuids[0], "--at-once").returncode == 0
        assert sde(service.url, "restore", f"{uuids[0]}-1").stdout == "restored 0\n"
        assert Client(service.url).search("circle", seed="3")[0] == 1
        opened = sde(service.url, "open", uuids[1], BROWSER="true")
        assert opened.stdout == f"{service.url}/#picture/{uuids[1]}-1\n"


def test_an_older_server_gets_a_request_without_the_field(tmp_path: Path) -> None:
    received: list[dict[str, object]] = []
    problem = {"errors": [{"field": "queue", "message": "is not a known field", "value": "True"}]}
    replies = {"POST /image/generate": (422, JSON_TYPE, json.dumps(problem).encode())}
    with answering(replies, received) as url:
        done = sde(url, "generate", "a", "--no-wait")
    assert done.returncode == 64
    assert [each.get("queue") for each in received] == [True, None]
    assert NEVER not in done.stdout
