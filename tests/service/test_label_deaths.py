"""Stars and the trash while the gateway is killed: what was answered holds, whatever dies."""

from __future__ import annotations

import threading
from pathlib import Path

import requests

from tests.support.service import Service, running

KILLS = 4


class Person(threading.Thread):
    """Stars and trashes its own image in turn, and notes what was answered."""

    def __init__(self, service: Service, image: str) -> None:
        super().__init__(daemon=True)
        self.service, self.image = service, image
        self.star, self.trash = False, False
        self.doubt: tuple[bool, bool] | None = None
        self.answers = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            if turn % 2:
                after, path = (not self.star, self.trash), "star"
            else:
                after, path = (self.star, not self.trash), "restore" if self.trash else "trash"
            body = {"images": [self.image], **({"star": after[0]} if path == "star" else {})}
            try:
                reply = requests.post(f"{self.service.url}/image/{path}", json=body, timeout=30)
            except requests.RequestException:
                self.doubt = after  # it may have happened
                return
            assert reply.status_code == 200, reply.text
            self.star, self.trash = after
            self.answers += 1


def state(service: Service, image: str) -> tuple[bool, bool]:
    for trash in (False, True):
        query = {"trash": str(trash).lower(), "fields": "name,star"}
        for each in service.get("/image/results", params=query).json()["results"]:
            if each["name"] == image:
                return each["star"], trash
    raise AssertionError(f"{image} is lost")


def test_what_was_answered_holds_after_a_kill(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        uuid = service.submit("a", num_images_per_prompt=4)
        service.results(uuid)
        states = {f"{uuid}-{number}": (False, False) for number in range(1, 5)}
        answers = 0
        for round_number in range(KILLS):
            people = [Person(service, image) for image in states]
            for each in people:
                each.star, each.trash = states[each.image]
                each.start()
            threading.Event().wait(0.2 + 0.1 * round_number)
            service.kill("gateway")
            for each in people:
                each.join(60)
                answers += each.answers
            if round_number % 2:
                (folder / "disk_backups" / "index.sqlite").unlink()
            service.start("gateway")
            service.wait_answering()
            for each in people:
                states[each.image] = state(service, each.image)
                assert states[each.image] in ((each.star, each.trash), each.doubt)
        assert answers > 4
