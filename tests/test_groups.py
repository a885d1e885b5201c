"""Several results of one job: all or none of them, in order, whatever is cut or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_worker.results import consolidation
from gpu_worker.results.line import draw, encode
from tests.service import Service, running
from tests.test_fsck import Check, Store, check, faults, store  # noqa: F401 (fixtures)
from tests.test_results import NAME, index_of, opened, read, record, served, without_index


def group(count: int, sequence: int = 1) -> list[dict[str, Any]]:
    first = record("several", sequence, data="aGk=")
    return [
        {**first, "seed": place, "image_index": place, "num_images": count}
        for place in range(count)
    ]


def test_a_line_says_which_of_how_many(tmp_path: Path) -> None:
    drawn = draw(encode(group(3)[1]))
    assert (drawn.image_index, drawn.num_images) == (1, 3)
    old = draw(encode(record()))
    assert (old.image_index, old.num_images) == (0, 1)


def test_a_jobs_results_are_listed_in_order(tmp_path: Path) -> None:
    log = opened(tmp_path)
    first, several, last = record("first", 1), group(3, 2), record("last", 3)
    log.append(first)
    log.append_all(several)
    log.append(last)
    assert read(tmp_path) == [first, *several, last]
    index = index_of(tmp_path)
    found = index.find_all(several[0]["uuid"])
    assert [json.loads(index.read(entry) or b"")["seed"] for entry in found] == [0, 1, 2]
    assert index.find(several[0]["uuid"]) == found[0]


@pytest.mark.parametrize(("limit", "pages"), [(1, [1, 3, 1]), (2, [4, 1]), (3, [4, 1]), (5, [5])])
def test_a_page_holds_whole_jobs(tmp_path: Path, limit: int, pages: list[int]) -> None:
    log = opened(tmp_path)
    log.append(record("first", 1))
    log.append_all(group(3, 2))
    log.append(record("last", 3))
    index = index_of(tmp_path)
    found, last = [], None
    while page := index.newest_first(limit, last):
        found.append(page)
        last = page[-1]
    assert [len(page) for page in found] == pages
    everything = [entry for page in found for entry in page]
    assert [entry.sequence for entry in everything] == [3, 2, 2, 2, 1]
    assert [entry.image_index for entry in everything[1:4]] == [0, 1, 2]


def test_cut_at_every_byte_a_group_is_there_or_not(tmp_path: Path) -> None:
    before, several = record("before", 1), group(3, 2)
    head = encode(before)
    whole = head + b"".join(map(encode, several))
    path = tmp_path / NAME
    for length in range(len(head), len(whole) + 1):
        expected = [before, *several] if length == len(whole) else [before]
        without_index(tmp_path)
        path.write_bytes(whole[:length])
        assert read(tmp_path) == expected, "a reader while the worker is away"
        log = opened(tmp_path)
        assert log.position[1] == (length if length == len(whole) else len(head))
        again = record("again", 3)
        log.append(again)
        log.close()
        assert read(tmp_path) == [*expected, again]
        without_index(tmp_path)
        assert read(tmp_path) == [*expected, again]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("follows", [False, True])
def test_a_damaged_line_costs_one_picture_only(tmp_path: Path, place: int, follows: bool) -> None:
    several, last = group(3, 2), record("last", 3)
    lines = [encode(each) for each in several]
    lines[place] = lines[place].replace(b"several", b"sevexal")
    (tmp_path / NAME).write_bytes(b"".join(lines) + (encode(last) if follows else b""))
    left = [each for each in several if each["image_index"] != place] + [last] * follows
    assert read(tmp_path) == left
    log = opened(tmp_path)
    assert log.position[1] == (tmp_path / NAME).stat().st_size, "bit rot is no torn group"
    assert read(tmp_path) == left
    index = index_of(tmp_path)
    assert index.totals().damaged_lines == 1


def test_a_group_outlives_a_merge_and_leaves_as_a_whole(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=600)
    groups = [group(3, number) for number in range(1, 9)]
    for each in groups:
        log.append_all(each)
    index = index_of(tmp_path)
    for run in list(consolidation.runs(index, 4000)):
        consolidation.merge(index, run)
    flat = [each for several in groups for each in several]
    assert served(index) == flat
    index.delete(groups[0][0]["uuid"])
    assert served(index) == flat[3:]
    index.close()
    without_index(tmp_path)
    assert served(index_of(tmp_path, (groups[0][0]["uuid"],))) == flat[3:]


def test_fsck_cuts_a_group_whose_end_lacks(check: Check, store: Store) -> None:  # noqa: F811
    several = group(3, 8)
    store.append("gpu-0.00000002.jsonl", b"".join(map(encode, several[:2])))
    code, said = check()
    assert code != 0 and len(faults(said)) == 1
    assert "of a job whose last lines lack" in said
    check("--fix")
    code, said = check()
    assert code == 0 and not faults(said)
    assert several[0]["uuid"].encode() not in (store.folder / "gpu-0.00000002.jsonl").read_bytes()


def test_several_pictures_through_the_service(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        uuid = service.submit("three", num_images_per_prompt=3, seed=7)
        results = service.results(uuid)
        assert [(each["uuid"], each["image_index"], each["seed"]) for each in results] == [
            (uuid, 0, 7),
            (uuid, 1, 8),
            (uuid, 2, 9),
        ]
        single = service.submit("one", seed=9)
        assert service.result(single)["data"] == results[2]["data"]
        assert_files(service, uuid, results)
        listed = service.get("/image/generate?data=false").json()
        assert [each["uuid"] for each in listed] == [uuid] * 3 + [single]
        assert service.job(uuid)["state"] == "succeeded"
        gone = requests.delete(f"{service.url}/image/generate?generation_uuid={uuid}", timeout=10)
        assert gone.status_code == 204
        assert service.get(f"/image/generate?generation_uuid={uuid}").json() == []


def assert_files(service: Service, uuid: str, results: list[dict[str, Any]]) -> None:
    import base64

    for number, each in enumerate(results, start=1):
        reply = service.get(f"/image/files/{uuid}-{number}.png")
        assert reply.content == base64.b64decode(each["data"])
    assert service.get(f"/image/files/{uuid}.png").content == base64.b64decode(results[0]["data"])
    missing = service.get(f"/image/files/{uuid}-4.png")
    assert missing.status_code == 404 and "has no picture 4" in missing.json()["detail"]
