"""The command's own surroundings: streams, pipes, files, formats, and the handles of jobs."""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sde_client import Client, image_file, png_text, request_body
from sde_client.commands import handles
from sde_client.errors import InvalidRequest, NotSaved, UnknownJob

from gpu_worker.contract import image_codec
from tests.support.command import COMMAND, options, sde
from tests.support.service import DEADLINE_S, Service, free_port

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def made(service: Service) -> str:
    return service.result(service.submit("a picture"))["uuid"]


def shell(service: Service, line: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A line of sh, in which $SDE is the command."""
    text = line.replace("$SDE", " ".join(f"'{part}'" for part in COMMAND))
    return subprocess.run(
        ["sh", "-c", text],
        cwd=cwd,
        env=options(service.url),
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_fault(service: Service, tmp_path: Path, closed: str) -> None:
    service.wait_available()
    done = shell(service, f"$SDE status {closed}", tmp_path)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


def test_a_full_disk_behind_standard_output_is_a_sentence(service: Service, tmp_path: Path) -> None:
    done = shell(service, "$SDE status > /dev/full", tmp_path)
    assert done.returncode == 74
    assert done.stderr == b"sde: standard output cannot be written: No space left on device\n"


def test_a_reader_that_leaves_is_no_fault(service: Service, made: str, tmp_path: Path) -> None:
    done = shell(service, "$SDE show @1 --json | head -c 1; true", tmp_path)
    assert done.stdout == b"{" and b"Traceback" not in done.stderr and done.stderr == b""
    for command in (["show", "@1", "--json"], ["status"], ["list"], ["save", "@1", "-o", "-"]):
        reading, writing = os.pipe()
        os.close(reading)
        gone = subprocess.run(
            [*COMMAND, *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=options(service.url),
            timeout=DEADLINE_S,
            check=False,
        )
        os.close(writing)
        assert gone.returncode == 141 and gone.stderr in (b"", b"succeeded\n")


def test_a_picture_goes_to_standard_output(service: Service, tmp_path: Path) -> None:
    done = shell(service, "$SDE generate x -o - | cat", tmp_path)
    assert done.stdout.startswith(PNG) and done.stdout[-8:-4] == b"IEND"
    assert list(tmp_path.iterdir()) == []
    several = shell(service, "$SDE generate x -n 2 -o - | cat", tmp_path)
    assert several.stdout == b"" and b"the job has 2 images" in several.stderr


def test_prompts_come_from_standard_input(service: Service, tmp_path: Path) -> None:
    lines = "one\n\n  two  \nthree\n"
    done = sde(service.url, "generate", "-", "-o", "a.png", cwd=tmp_path, text=lines)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.png", "a-3.png", "a.png"]
    uuids = [line.split("\t")[1] for line in done.stdout.splitlines()]
    prompts = [service.result(uuid)["prompt"] for uuid in uuids]
    assert prompts == ["one", "two", "three"]
    forced = sde(
        service.url, "generate", "-", "-o", "a.png", "--force", cwd=tmp_path, text="one\ntwo"
    )
    assert forced.returncode == 2 and "--force would replace each image" in forced.stderr


def test_a_file_that_exists_is_kept_unless_forced(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    url = service.url
    sde(url, "generate", "x", "-o", "a.png", cwd=tmp_path)
    assert (tmp_path / "a.png").read_text() == "mine"
    assert (tmp_path / "a-2.png").read_bytes().startswith(PNG)
    sde(url, "generate", "x", "-o", "a.png", "--force", cwd=tmp_path)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")]
)
def test_a_suffix_chooses_the_format_and_keeps_the_parameters(
    service: Service, tmp_path: Path, suffix: str, kind: str
) -> None:
    done = sde(service.url, "generate", "a café", "-o", f"a{suffix}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == kind
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be").startswith("a café\n")


def test_one_line_names_file_id_seed_and_seconds(service: Service, tmp_path: Path) -> None:
    done = sde(service.url, "generate", "x", "--seed", "7", "-o", "a.png", cwd=tmp_path)
    file, uuid, seed, seconds = done.stdout.rstrip("\n").split("\t")
    assert (file, seed) == ("a.png", "7") and float(seconds) >= 0
    assert service.result(uuid)["seed"] == 7


def on_a_terminal(url: str, *arguments: str) -> list[str]:
    """The lines of a command on a terminal of 80 columns, without colours."""
    main, side = pty.openpty()
    environment = options(url) | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=side, stderr=side, env=environment
    ) as child:
        os.close(side)
        text = b""
        with open(main, "rb", buffering=0) as screen:
            while True:
                try:
                    chunk = screen.read(4096)
                except OSError:  # the other end is closed
                    break
                if not chunk:
                    break
                text += chunk
        child.wait(DEADLINE_S)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
    return [line.rstrip() for line in plain.replace("\r", "").splitlines()]


class TestEightyColumns:
    def test_a_message_breaks_between_words_and_keeps_an_address(self) -> None:
        url = f"http://127.0.0.1:{free_port()}/{'path/' * 20}end"
        lines = on_a_terminal(url, "status")
        assert len(lines) > 2 and url + ":" in lines
        assert all(len(line) <= 80 for line in lines if url not in line)
        assert "\n" not in sde(url, "status").stderr.rstrip("\n")


class TestHandles:
    def test_first_digits_newest_and_a_picture_are_the_job(
        self, service: Service, tmp_path: Path
    ) -> None:
        done = sde(service.url, "generate", "handle", "-o", "a.png", cwd=tmp_path)
        uuid = done.stdout.split("\t")[1]
        with Client(service.url) as client:
            for handle in (uuid, uuid[:8], uuid[:8].upper(), "@1", str(tmp_path / "a.png")):
                assert handles.resolve(client, handle) == uuid
            with pytest.raises(UnknownJob):
                handles.resolve(client, "@9999")
            with pytest.raises(UnknownJob):
                handles.resolve(client, "ffffffff")
        for command in ("show", "save", "verify"):
            assert sde(service.url, command, uuid[:8], cwd=tmp_path).returncode == 0
        assert sde(service.url, "generate", "--like", "a.png", cwd=tmp_path).returncode == 0
        older = [service.result(service.submit("older"))["uuid"] for _ in range(2)]
        kept = service.result(service.submit("newest"))["uuid"]
        # A deletion changes which job is @2.
        gone = sde(service.url, "delete", "@2", "@3")
        assert gone.stdout == f"deleted {older[1]}\ndeleted {older[0]}\n"
        assert sde(service.url, "show", kept).returncode == 0

    def test_digits_of_several_are_refused_with_examples(self, monkeypatch: Any) -> None:
        uuids = ["abcd0000-0000-4000-8000-000000000001", "abcd1111-0000-4000-8000-000000000001"]
        monkeypatch.setattr(handles, "_newest", lambda client, limit: iter(uuids))
        with pytest.raises(InvalidRequest, match="the start of 2 jobs, such as abcd0000, abcd1111"):
            handles.resolve(Client("http://127.0.0.1:1"), "abcd")

    def test_a_list_fits_a_terminal_of_80_columns(self, service: Service) -> None:
        service.result(service.submit("word " * 60))
        lines = on_a_terminal(service.url, "list")
        assert len(lines) >= 2 and max(map(len, lines)) <= 80
        assert lines[0].split()[:2] == ["uuid", "created"] and len(lines[1].split()[0]) == 8
        assert "word word" in lines[-1]


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [
            Image.new("RGB", (64, 64)),
            io.BytesIO(b""),
            bytearray(b""),
            memoryview(b""),
        ],
        ids=["pil", "file", "bytearray", "memoryview"],
    )
    def test_an_image_is_whatever_python_has(self, service: Service, value: Any) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
        if isinstance(value, io.BytesIO):
            value = buffer  # its position is at the end
        elif not isinstance(value, Image.Image):
            value = type(value)(buffer.getvalue())
        with Client(service.url) as client:
            uuid = client.submit("x", image=value, strength=np.float32(0.5), seed=np.int64(5))
            assert service.result(uuid)["seed"] == 5

    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
    )
    def test_a_pil_image_of_any_mode_becomes_a_png_that_the_service_reads(self, mode: str) -> None:
        image = Image.new("RGB", (64, 48), "teal").convert("L" if mode == "I;16" else "RGB")
        sent = request_body.body("x", {"image": image.convert(mode)})["image"]
        decoded = image_codec.decode(image_codec.from_base64(sent))
        assert (decoded.format, decoded.size) == ("PNG", (64, 48))
        if not mode.startswith(("I", "F")):  # their range has no fixed white
            expected = image.convert(mode).convert("RGB")
            assert decoded.convert("RGB").tobytes() == expected.tobytes()

    def test_a_pil_image_is_sent_upright(self) -> None:
        image = Image.new("RGB", (64, 48), "teal")
        image.getexif()[0x0112] = 6
        sent = request_body.body("x", {"image": image})["image"]
        assert image_codec.decode(image_codec.from_base64(sent)).size == (48, 64)

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("image", 5, "image: must be a path, bytes, a binary file or a PIL image"),
            ("image", io.StringIO("x"), "image: the file must be opened in binary mode"),
            ("seed", object(), "seed: a value of the type object cannot be sent"),
            ("guidance_scale", float("nan"), "guidance_scale: must be a finite number"),
            ("loras", [{"name": {1, 2}}], "loras.0.name: a value of the type set"),
            ("controlnets", [{"image": None, "x": 1j}], "controlnets.0.x: a value of the type"),
        ],
    )
    def test_anything_else_is_refused_by_its_field(
        self, field: str, value: Any, reason: str
    ) -> None:
        with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidRequest) as caught:
            client.submit("x", **{field: value})
        assert str(caught.value).startswith(reason)

    def test_an_upscaling_is_refused_by_its_field_too(self) -> None:
        with (
            Client("http://127.0.0.1:1") as client,
            pytest.raises(InvalidRequest, match=r"^scale: "),
        ):
            client.upscale("x", scale=float("nan"))


def test_texts_of_a_png_are_read_without_pillow(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("plain", "a")
    info.add_text("packed", "b" * 500, zip=True)
    info.add_itxt("wide", "ü→", zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    content = (tmp_path / "a.png").read_bytes()
    assert png_text.texts(content) == {"plain": "a", "packed": "b" * 500, "wide": "ü→"}
    assert png_text.texts(content[:60]) == {"plain": "a"}
    assert png_text.record_uuid(tmp_path / "a.png") is None


def test_a_format_without_pillow_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(NotSaved, match="install Pillow to save a JPEG"):
        image_file.write(PNG + b"x", tmp_path / "a.jpg")


def test_https_at_an_http_port_is_answered_at_once(service: Service) -> None:
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="localhost")
    done = sde(service.url.replace("http://", "https://"), "status")
    assert done.returncode == 69 and "it does not speak https there; use http://" in done.stderr


def test_a_proxy_is_named() -> None:
    proxy = f"http://user:secret@127.0.0.1:{free_port()}"
    done = sde("http://gateway.invalid:9090", "status", HTTP_PROXY=proxy)
    assert done.returncode == 69 and "through the proxy http://127.0.0.1" in done.stderr
    assert "secret" not in done.stderr
