"""Finds the job that a user means: by uuid, by its first digits, by @1, or by an image file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import UUID

from sde_client import png_text
from sde_client.api import Client
from sde_client.errors import InvalidRequest, UnknownJob
from sde_client.http_api import MAX_PAGE

SEARCHED = 10_000
"""The number of newest jobs among which the first digits are searched."""

MAX_IMAGES = 16
"""The limit of num_images_per_prompt (docs/http-api.md)."""

_NEWEST = re.compile(r"@([1-9]\d{0,3})")
_PREFIX = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{0,35}")


def resolve(client: Client, handle: str) -> str:
    """Return the uuid of a job.

    Args:
        handle: a uuid; the first digits of one; `@N` for the N-th newest job; or the path
            of a PNG that the service made.

    Raises:
        UnknownJob: no job matches.
        InvalidRequest: several jobs match.
    """
    if is_uuid(handle):
        return str(UUID(handle))
    if position := _NEWEST.fullmatch(handle):
        number = int(position[1])
        uuid = next(islice(_newest(client, number), number - 1, None), None)
        if uuid is None:
            raise UnknownJob(handle)
        return uuid
    uuid = png_text.record_uuid(Path(handle))
    if uuid is not None:
        return uuid
    if not _PREFIX.fullmatch(handle):
        return handle  # the server says what is wrong with it
    newest = islice(_newest(client, SEARCHED), SEARCHED)
    matches = [each for each in newest if each.startswith(handle.lower())]
    if len(matches) > 1:
        examples = ", ".join(each[: len(handle) + 4] for each in matches[:3])
        raise InvalidRequest(f"{handle} is the start of {len(matches)} jobs, such as {examples}")
    if not matches:
        raise UnknownJob(handle)
    return matches[0]


def is_uuid(text: str) -> bool:
    """Return whether the text is a whole uuid, with or without dashes."""
    try:
        return UUID(text).hex == text.lower().replace("-", "")
    except ValueError:
        return False


def _newest(client: Client, limit: int) -> Iterator[str]:
    """Yield the uuids of the newest jobs, the newest first."""
    listed: set[str] = set()
    for job in client.jobs(min(limit, MAX_PAGE)):
        listed.add(job.uuid)
        yield job.uuid
    # A job has up to MAX_IMAGES results.
    for result in client.results(limit=limit * MAX_IMAGES, data=False):
        if result.uuid not in listed:
            listed.add(result.uuid)
            yield result.uuid
