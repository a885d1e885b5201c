"""Reads the whole store and says what is wrong with it. Writes nothing, mends nothing. A leaf.

What a running process may be doing at this moment (a line half-written, a merge, a new note) is
information, not a fault.
"""

from __future__ import annotations

from pathlib import Path

from gpu_worker.durable import DamagedLine
from gpu_worker.results import compare, examine_jobs, line, place, raw_lines, scan, segments
from gpu_worker.results.groups import Tail
from gpu_worker.results.segments import Segment
from gpu_worker.results.survey import Kind, Part, Survey
from gpu_worker.settings import Settings

DAMAGED_NAME = "damaged"
"""The folder, within that of the results, that holds what was taken out."""


def store(settings: Settings, names: list[str], survey: Survey) -> None:
    """One look at everything.

    Args:
        names: the files in the folder of the results; what comes later is somebody's who runs.

    Raises:
        OSError: there is no room for a copy of the index.
    """
    folder, journal = settings.results_dir, settings.journal_path
    # Notes first: a job is in the journal before it is in a note.
    notes = list(examine_jobs.read_notes(folder, names, survey))
    found = [segment for segment in map(segments.parse, names) if segment is not None]
    void = segments.replaced(found)
    live = sorted(set(found) - set(void))
    newest = {segment.writer: segment for segment in live}
    for segment in live:
        _segment(folder, segment, segment == newest[segment.writer], survey)
    examine_jobs.read_journal(journal, survey)
    for segment in void:
        _replaced(folder, segment, survey)
    examine_jobs.tell(folder, journal, survey)
    saved = folder / DAMAGED_NAME
    for note in notes:
        examine_jobs.judge(note, journal, saved, survey)
    for path in [*(folder / name for name in names), *journal.parent.glob("*"), *saved.glob("*")]:
        _left_over(path, survey)
    compare.index(folder, survey)


def _segment(folder: Path, segment: Segment, is_newest: bool, survey: Survey) -> None:
    path, last, tail = folder / segment.name, None, Tail()
    for offset, text in raw_lines.examine(path, segment.writer, survey):
        try:
            drawn = line.draw(text)
        except DamagedLine as error:
            # Somebody meant to write this: another version. To take it out would lose it to that.
            reason = f"its checksum is right, but it {error}"
            survey.find(Kind.FOREIGN, path, offset, reason, is_fault=False)
            continue
        last = drawn.uuid
        tail.take(offset, drawn)
        first = survey.add(place.entry(segment.name, offset, len(text), drawn))
        if first is not None:
            reason = f"{drawn.uuid} counts in {first.segment} at {first.offset}"
            survey.find(Kind.DOUBLED, path, offset, reason)
            survey.take_out(path, Part(offset, len(text), drawn.uuid))
    if tail.begin is not None and is_newest:
        _cut_short(path, segment.writer, tail.begin, survey)
    if path in survey.read_to:
        survey.end_segment(segment, survey.read_to[path], last)


def _cut_short(path: Path, writer: str, begin: int, survey: Survey) -> None:
    """A job's last lines lack: its worker cuts the others when it is back, and runs it again."""
    length = survey.read_to[path] - begin
    if survey.is_live(writer):
        reason = f"{length} bytes: {writer} is appending a job's lines"
        survey.find(Kind.TORN, path, begin, reason, is_fault=False)
        return
    survey.find(Kind.TORN, path, begin, f"{length} bytes of a job whose last lines lack")
    survey.take_out(path, Part(begin, length, None))


def _replaced(folder: Path, segment: Segment, survey: Survey) -> None:
    """A void segment; should it hold what no other does, it is not to be thrown away."""
    path, alone = folder / segment.name, 0
    if survey.is_live("gateway"):
        reason = "by a merged one: the gateway is about to remove it"
        survey.find(Kind.REPLACED, path, None, reason, is_fault=False)
        return
    try:
        with raw_lines.open_plain(path) as file:
            for _, _, text in scan.whole_lines(file):
                alone += text is not None and _is_nowhere_else(text, survey)
    except OSError as error:
        raw_lines.cannot_read(path, error, survey)
        return
    reason = "by a merged one"
    if alone:
        reason += f"; {alone} of its results are nowhere else, so that it is moved aside"
    survey.find(Kind.REPLACED, path, None, reason)
    (survey.aside if alone else survey.void).append(path)


def _is_nowhere_else(text: bytes, survey: Survey) -> bool:
    try:
        uuid = line.draw(text).uuid
    except DamagedLine:
        return False
    return not survey.has_result(uuid) and not survey.is_deleted(uuid)


def _left_over(path: Path, survey: Survey) -> None:
    """Half a file, which is never renamed to a whole one any more when its writer is gone."""
    if not path.name.endswith((".jsonl.tmp", ".json.tmp")) and not (
        path.parent.name == DAMAGED_NAME and path.suffix == ".tmp"
    ):
        return
    if path.is_dir() and not path.is_symlink():
        return
    writer = path.name.partition(".")[0] if ".in_flight." in path.name else "gateway"
    if survey.is_live(writer):
        reason = f"{writer} is writing it"
        survey.find(Kind.LEFT_OVER, path, None, reason, is_fault=False)
    else:
        survey.find(Kind.LEFT_OVER, path, None, "half-written by a process that died")
        survey.void.append(path)
