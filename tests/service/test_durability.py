"""Nothing accepted is lost, nothing is done twice: through the real service, whatever is killed."""

from __future__ import annotations

import json
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.service import Service, eventually, running

SLOW, HELD = "tests.pipelines.slow:load", "tests.pipelines.held:load"
NEVER = "00000000-0000-4000-8000-000000000000"


def keyed(service: Service, key: str, **body: Any) -> requests.Response:
    return service.post({"prompt": "a", **body}, headers={"Idempotency-Key": key})


def deleted(service: Service, path: str) -> requests.Response:
    return requests.delete(service.url + path, timeout=30)


def restart_gateway(service: Service, number: int = signal.SIGKILL) -> None:
    service.kill("gateway", number)
    service.start("gateway")
    service.wait_answering()


class TestRestart:
    def test_queued_jobs_stay_queued_in_their_order(self, folder: Path) -> None:
        with running(
            folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="5"
        ) as service:
            uuids = [service.submit(f"number {n}", num_inference_steps=2) for n in range(5)]
            service.wait_step(uuids[0])
            restart_gateway(service)
            assert service.job(uuids[0])["state"] == "running"
            assert [service.job(each)["position"] for each in uuids[1:]] == [0, 1, 2, 3]
            service.release()
            for each in uuids:
                assert service.result(each)["errors"] == []
            assert [line["uuid"] for line in service.lines()] == uuids
            sequences = [line["sequence"] for line in service.lines()]
            assert sequences == sorted(set(sequences))

    def test_a_job_accepted_with_the_last_breath_is_run(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="50") as service:
            for _ in range(5):
                accepted = service.submit()
                service.kill("gateway", signal.SIGKILL)
                service.start("gateway")
                service.wait_answering()
                assert service.result(accepted)["errors"] == []
            assert len(service.lines()) == 5

    def test_a_running_job_that_ended_meanwhile_is_found_in_the_log(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            accepted = service.submit(num_inference_steps=5)
            service.wait_step(accepted)
            service.kill("gateway", signal.SIGKILL)
            service.release()
            eventually(service.lines, "the worker finishes by itself")
            service.start("gateway")
            service.wait_answering()
            job = service.job(accepted)
            assert (job["state"], job["step"], job["attempts"]) == ("succeeded", 5, 1)
            assert job["started_time"] < job["ended_time"]


class TestExactlyOnce:
    def test_the_same_key_is_the_same_job_for_good(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="9") as service:
            first = keyed(service, "k-1", seed=3).json()["generation_uuid"]
            assert keyed(service, "k-1", seed=3).json()["generation_uuid"] == first
            service.result(first)
            restart_gateway(service)
            assert keyed(service, "k-1", seed=3).json()["generation_uuid"] == first
            other = keyed(service, "k-1", seed=4)
            assert other.status_code == 409 and "k-1" in other.json()["detail"]
            assert first in other.json()["detail"]
            service.wait_available()
            assert len(service.lines()) == 1

    def test_two_equal_posts_at_once_are_one_job(self, folder: Path) -> None:
        with running(
            folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="9"
        ) as service:
            with ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(lambda _: keyed(service, "twice"), range(8)))
            uuids = {reply.json()["generation_uuid"] for reply in replies}
            assert len(uuids) == 1
            assert len(service.get("/image/jobs").json()) == 1

    def test_a_refused_key_may_come_again(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            running_one = service.submit(num_inference_steps=2)
            assert keyed(service, "later").status_code == 429
            service.release()
            service.result(running_one)
            service.wait_available()
            assert keyed(service, "later").status_code == 200

    @pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
    def test_a_wrong_key_is_named(self, service: Service, key: str) -> None:
        reply = requests.post(
            service.url + "/image/generate",
            json={"prompt": "a"},
            headers={"Idempotency-Key": key.encode("latin-1")},
            timeout=30,
        )
        assert reply.status_code == 400 and "Idempotency-Key" in reply.json()["detail"]


class TestCancel:
    def test_a_queued_job(self, folder: Path) -> None:
        with running(
            folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="5"
        ) as service:
            first, second, third = (service.submit(num_inference_steps=2) for _ in range(3))
            service.wait_step(first)
            reply = deleted(service, f"/image/jobs/{second}")
            assert reply.status_code == 200 and reply.json()["state"] == "canceled"
            assert service.job(third)["position"] == 0
            record = service.result(second)
            assert record["data"] is None and record["state"] == "canceled"
            assert record["errors"] == ["canceled before it ran"]
            restart_gateway(service)
            assert service.job(second)["state"] == "canceled"
            assert deleted(service, f"/image/jobs/{second}").status_code == 200
            service.release()
            service.result(first)
            service.result(third)
            assert [line["uuid"] for line in service.lines()].count(second) == 1

    def test_a_running_job_ends_between_two_steps(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            accepted = service.submit(num_inference_steps=500)
            service.wait_step(accepted)
            reply = deleted(service, f"/image/jobs/{accepted}")
            assert reply.status_code == 202 and reply.json()["cancel_requested"]
            record = service.result(accepted)
            assert record["state"] == "canceled" and "canceled" in record["errors"][0]
            assert service.job(accepted)["state"] == "canceled"
            service.wait_available()
            service.release()
            assert service.result(service.submit(num_inference_steps=1))["errors"] == []

    def test_a_wish_outlives_the_gateway_and_the_worker(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            accepted = service.submit(num_inference_steps=500)
            service.wait_step(accepted)
            service.children["gpu_worker"].send_signal(signal.SIGSTOP)
            assert deleted(service, f"/image/jobs/{accepted}").status_code == 202
            service.kill("gateway", signal.SIGKILL)
            service.kill("gpu_worker", signal.SIGKILL)
            service.start("gateway")
            service.start("gpu_worker")
            service.wait_answering()
            assert service.result(accepted)["state"] == "canceled"

    def test_what_has_ended_or_was_never_there(self, service: Service) -> None:
        service.wait_available()
        accepted = service.submit()
        service.result(accepted)
        eventually(lambda: service.job(accepted)["state"] == "succeeded", "it is seen to end")
        assert deleted(service, f"/image/jobs/{accepted}").status_code == 409
        assert deleted(service, f"/image/jobs/{NEVER}").status_code == 404
        assert deleted(service, "/image/jobs/x").status_code == 400


class TestDelete:
    def test_a_deleted_result_is_gone_for_good(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            accepted = service.submit()
            service.result(accepted)
            path = f"/image/generate?generation_uuid={accepted}"
            assert deleted(service, path).status_code == 204
            for _ in range(2):
                assert service.get(path).json() == []
                assert service.get("/image/generate").json() == []
                assert service.get(f"/image/jobs/{accepted}").status_code == 410
                assert service.get(f"/image/files/{accepted}.png").status_code == 410
                assert deleted(service, path).status_code == 410
                restart_gateway(service)
            assert deleted(service, f"/image/generate?generation_uuid={NEVER}").status_code == 404
            assert deleted(service, "/image/generate").status_code == 400

    def test_what_has_not_ended_cannot_be_deleted(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            accepted = service.submit(num_inference_steps=2)
            reply = deleted(service, f"/image/generate?generation_uuid={accepted}")
            assert reply.status_code == 409 and "cancel it" in reply.json()["detail"]
            service.release()
            assert service.result(accepted)["errors"] == []


class TestLooking:
    def test_pages_newest_first(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="9") as service:
            uuids = [service.submit(f"{n}") for n in range(5)]
            for each in uuids:
                service.result(each)
            page = service.get("/image/generate", params={"limit": 2, "data": "false"})
            assert [line["uuid"] for line in page.json()] == uuids[:-3:-1]
            assert all(line["data"] is None for line in page.json())
            rest: list[str] = []
            while "next" in page.links:
                page = requests.get(service.url + page.links["next"]["url"], timeout=30)
                rest += [line["uuid"] for line in page.json()]
            assert rest == uuids[-3::-1]
            whole = service.get("/image/generate", params={"before": uuids[1]}).json()
            assert [line["uuid"] for line in whole] == uuids[:1] and whole[0]["data"]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=x", "limit=1001", "before=x", f"before={NEVER}", "data=1"]
    )
    def test_a_wrong_page_is_named(self, service: Service, query: str) -> None:
        reply = service.get(f"/image/generate?{query}")
        assert reply.status_code == 400
        assert query.partition("=")[0] in reply.json()["detail"]

    def test_the_picture_itself(self, service: Service) -> None:
        service.wait_available()
        accepted = service.submit()
        service.result(accepted)
        reply = service.get(f"/image/files/{accepted}.png")
        assert reply.headers["Content-Type"] == "image/png" and reply.content[1:4] == b"PNG"
        assert "immutable" in reply.headers["Cache-Control"]
        again = service.get(
            f"/image/files/{accepted}-1.png", headers={"If-None-Match": reply.headers["ETag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert service.get(f"/image/files/{accepted}-2.png").status_code == 404
        assert service.get(f"/image/files/{NEVER}.png").status_code == 404
        for wrong in ("x.png", f"{accepted}.jpg", "..%2f..%2fetc%2fpasswd", f"{accepted}-0.png"):
            assert service.get(f"/image/files/{wrong}").status_code in (400, 404)

    def test_waiting_for_the_next_change(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
            accepted = service.submit(num_inference_steps=20)
            states = []
            while not states or states[-1]["state"] != "succeeded":
                states.append(service.get(f"/image/jobs/{accepted}?wait=20").json())
                if states[-1]["step"] == 1:
                    service.release()
            steps = [state["step"] for state in states]
            assert steps == sorted(steps) and {1, 20} <= set(steps)
            assert len(states) < 45
            for wrong in ("-1", "31", "x", "nan"):
                assert service.get(f"/image/jobs/{accepted}?wait={wrong}").status_code == 400

    def test_many_waiters_leave_room_for_others(self, folder: Path) -> None:
        with running(
            folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="1"
        ) as service:
            service.submit(num_inference_steps=2)
            waiting = service.submit(num_inference_steps=1)
            with ThreadPoolExecutor(30) as pool:
                looks = [
                    pool.submit(service.get, f"/image/jobs/{waiting}?wait=30") for _ in range(30)
                ]
                assert service.get("/server/status").json() == {"is_available": False}
                assert not all(look.done() for look in looks)
                service.release()
                assert all(look.result().status_code == 200 for look in looks)


def test_three_poison_jobs_in_a_row_leave_a_working_service(folder: Path) -> None:
    with running(
        folder, "supervisor", SDE_PIPELINE="tests.pipelines.killed:load", SDE_QUEUE_SIZE="5"
    ) as service:
        poison = [service.submit("poison") for _ in range(3)]
        good = service.submit("harmless")
        for each in poison:
            assert "died 2 times" in service.result(each)["errors"][0]
        assert service.result(good)["errors"] == []
        assert [line["uuid"] for line in service.lines()] == [*poison, good]


def test_a_torn_and_damaged_journal_loses_only_what_is_damaged(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="5") as service:
        uuids = [service.submit(f"number {n}", num_inference_steps=2) for n in range(3)]
        service.kill("gateway", signal.SIGKILL)
        service.release()
        path = folder / "journal" / "jobs.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        spoiled = [line.replace(b"number 1", b"number 9") for line in lines]
        path.write_bytes(b"".join(spoiled) + lines[0][:50])
        service.start("gateway")
        service.wait_answering()
        for each in (uuids[0], uuids[2]):
            assert service.result(each)["errors"] == []
        assert service.get(f"/image/jobs/{uuids[1]}").status_code == 404
        assert service.get("/server/storage").json()["damaged_lines"] == 1
        assert "was cut from the journal" in service.output()


def test_retention_keeps_the_newest(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="9") as service:
        uuids = [service.submit(f"{n}") for n in range(6)]
        for each in uuids:
            service.result(each)
        service.settings["SDE_KEEP_RESULTS"] = "2"
        restart_gateway(service)
        eventually(lambda: len(service.get("/image/generate").json()) == 2, "old ones are deleted")
        assert service.get(f"/image/jobs/{uuids[0]}").status_code == 410

        def texts() -> bytes:
            return b"".join(p.read_bytes() for p in (folder / "disk_backups").glob("*.jsonl"))

        eventually(lambda: uuids[0].encode() not in texts(), "they leave the disk")
        assert uuids[5].encode() in texts()
        service.wait_available()
        after = service.submit("after")
        assert service.result(after)["errors"] == []
        assert json.loads(texts().splitlines()[-1])["uuid"] == after


def test_uuids_are_random(service: Service) -> None:
    service.wait_available()
    assert uuid.UUID(service.submit()).version == 4
