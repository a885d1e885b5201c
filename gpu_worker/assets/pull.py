"""Runs `sde pull`: downloads a model from the hub and adds it to models.toml.

It downloads one set of safetensors weights and every other file of each part, but no code. It
pins the revision to a commit. An interrupted download resumes. It imports no torch.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit

from gpu_worker.assets import model_library, repository_files
from gpu_worker.assets.model_library import INDEX, ModelsError
from gpu_worker.assets.repository_files import NoModelFound
from gpu_worker.contract.field_types import Name
from gpu_worker.settings import Settings, SettingsError, load
from gpu_worker.store import durable


def add_to_library(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Write `[models.NAME]` into models.toml and keep everything else.

    Raises:
        ModelsError: the file is invalid before or after the change.
        OSError: the file cannot be written; it is unchanged.
    """
    model_library.read(path)
    document = tomlkit.parse(path.read_text(encoding="utf-8-sig") if path.exists() else "")
    table = document.setdefault("models", tomlkit.table(is_super_table=True))
    model_table = table.setdefault(name, tomlkit.table())
    model_table.update(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, tomlkit.dumps(document).encode())


def pull(
    repository: str, revision: str | None, name: str, variant: str | None, folder: Path
) -> str:
    """Download a model, add its name to models.toml, and return its commit.

    Raises:
        NoModelFound, ModelsError: nothing can be loaded, or models.toml is invalid.
        OSError: the hub cannot be reached, or the disk is full.
    """
    from huggingface_hub import HfApi, snapshot_download

    model_library.read(folder / "models.toml")  # before gigabytes are downloaded
    about = HfApi().model_info(repository, revision=revision)
    commit = str(about.sha)
    names = [each.rfilename for each in about.siblings or []]
    selection = repository_files.select(names, _index(repository, commit, names), variant)
    snapshot_download(
        repository,
        revision=commit,
        local_dir=folder / name,
        allow_patterns=list(map(glob.escape, selection.files)),
    )
    entry = {"source": name, "revision": commit}
    entry |= {"variant": selection.variant} if selection.variant else {}
    add_to_library(folder / "models.toml", name, entry)
    return commit


def _index(repository: str, commit: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the content of a repository's model_index.json.

    Raises:
        NoModelFound: it has another layout than diffusers'.
        OSError: the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    if INDEX not in names:
        raise NoModelFound(f"it has no {INDEX}, so it is not a pipeline of diffusers")
    # Not in the models folder: a repository that is refused leaves nothing there.
    with tempfile.TemporaryDirectory() as folder:
        path = hf_hub_download(repository, INDEX, revision=commit, local_dir=folder)
        try:
            index = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise NoModelFound(f"its {INDEX} is not valid JSON: {error}") from None
    if not isinstance(index, dict):
        raise NoModelFound(f"its {INDEX} is not a JSON object")
    return index


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Parse the command line, pull the model, and return an exit code of sysexits.h."""
    about = "Download a model from the hub and add it to models.toml."
    parser = argparse.ArgumentParser(prog="sde pull", description=about)
    parser.add_argument("repository", metavar="ID", help="such as stabilityai/sdxl-turbo")
    parser.add_argument("--revision", help="branch, tag or commit; default: the newest")
    parser.add_argument("--name", help="name for clients; default: the second half of ID")
    parser.add_argument("--variant", help="variant of the weights, such as fp16")
    options = parser.parse_args(arguments)
    name = options.name or options.repository.rpartition("/")[2]
    try:
        settings = load(Settings, environ)
        if not model_library.HUB_ID.fullmatch(options.repository):
            raise NoModelFound("it is not a hub id such as stabilityai/sdxl-turbo")
        _check_name(name)
        commit = pull(
            options.repository, options.revision, name, options.variant, settings.models_dir
        )
    except SettingsError as error:
        return _fail(os.EX_CONFIG, str(error))
    except (NoModelFound, ModelsError) as error:
        return _fail(os.EX_DATAERR, f"{options.repository}: {error}")
    except Exception as error:
        # The hub's library raises a dozen kinds, of requests, httpx and its own.
        return _fail(os.EX_UNAVAILABLE, f"{options.repository}: {_reason(error)}")
    print(f"{name}: {options.repository} at {commit}, in {settings.models_dir / name}")
    print("a running worker knows the name as soon as it is idle")
    return 0


def _reason(error: Exception) -> str:
    """Return the first line of an error, with the hub's address unless a local file failed."""
    from huggingface_hub import constants

    line = (str(error).strip().splitlines() or ["no reason was given"])[0]
    is_of_a_file = isinstance(error, OSError) and error.filename is not None
    return line if is_of_a_file else f"the hub at {constants.ENDPOINT} cannot be used: {line}"


def _check_name(name: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise NoModelFound(
            f"--name {name!r}: must have only letters, digits, dots, dashes and underscores"
        ) from None


def _fail(code: int, sentence: str) -> int:
    print(f"sde: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
