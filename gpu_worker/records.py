"""The result records of a job that has made pictures: one a picture, as they go into the log."""

from __future__ import annotations

import base64
from typing import Any

from gpu_worker import png
from gpu_worker.generation import Job, Outcome, result_record
from gpu_worker.seam import Picture


def picture_records(
    job: Job, pictures: list[Picture], said: dict[str, Any]
) -> list[dict[str, Any]]:
    """One record for each picture of a job that has succeeded."""
    records = []
    for place, picture in enumerate(pictures):
        facts = said | picture.facts | {"image_index": place, "num_images": len(pictures)}
        facts["width"], facts["height"] = picture.image.size
        data = base64.b64encode(png.encode(picture.image)).decode("ascii")
        records.append(
            result_record(job, outcome=Outcome.SUCCEEDED, errors=[], data=data, facts=facts)
        )
    return records
