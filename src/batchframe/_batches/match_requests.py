"""Which of our requests a batch answers that was made of another file than ours: matched by content, never by position.

Equal requests are worth the same, so each request of theirs takes the first of ours that is in no batch yet. Where all
of them are, it is a further attempt: of one that has no answer yet, and that it was an attempt of before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from batchframe._core import wire_format
from batchframe._core.column_names import CODE, CUSTOM_ID, DIGEST, REQUEST
from batchframe._core.digests import digest
from batchframe._core.events import trigger
from batchframe._results.parsed_answers import answers_of_part
from batchframe._store.input_files import lines_of, open_input, write_input_file
from batchframe._store.parts import ids_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from batchframe._store.records import PartRecord
    from batchframe._store.run_folder import RunFolder

_SLICE_BYTES = 8_000_000
_NTH = pl.int_range(pl.len()).over("digest").alias("nth")
_THEIRS = {"theirs": pl.String(), "digest": pl.Binary()}


def requests_of_run(folder: RunFolder, parts: Iterable[PartRecord], waiting: Collection[int]) -> pl.DataFrame:
    """Return the requests of a run in the order of its rows.

    Returns
    -------
    pl.DataFrame
        ``ours: String``, the custom_id; ``digest: Binary``; ``attempt: Int64``, the last one that a batch was made for,
        0 for requests that are in ``waiting`` parts only.
    """
    attempts = [
        ids_of(folder, part)
        .to_frame("ours")
        .with_columns(pl.lit(0 if part.number in waiting else part.attempt, pl.Int64).alias("attempt"))
        for part in parts
    ]
    last = pl.concat(attempts).group_by("ours").max()
    columns = [CUSTOM_ID, DIGEST, CODE, REQUEST]
    blocks = [
        folder.read_frame(folder.rows_path(number), columns)
        .filter(pl.col(CODE).is_null() & pl.col(REQUEST).is_null())
        .select(pl.col(CUSTOM_ID).alias("ours"), pl.col(DIGEST).alias("digest"))
        for number in range(len(folder.record().blocks))
    ]
    return pl.concat(blocks).join(last, on="ours", how="inner", maintain_order="left")


def requests_in(path: Path) -> pl.DataFrame:
    """Return ``theirs``, the custom_id, and ``digest`` of each request in an input file; lines without are left out."""
    frames = [pl.DataFrame(schema=_THEIRS)]
    with open_input(path) as handle:
        while lines := handle.readlines(_SLICE_BYTES):
            decoded = [request for line in lines if (request := wire_format.read_request(line)) is not None]
            bodies = [bytes(request.body).decode() for request in decoded]
            columns = {"theirs": [request.custom_id for request in decoded], "body": bodies}
            frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String()))
            frames.append(frame.select("theirs", digest(pl.col("body")).alias("digest")))
    return pl.concat(frames)


def match(theirs: pl.DataFrame, requests: pl.DataFrame, folder: RunFolder) -> pl.DataFrame | None:
    """Return which request of ours each of theirs is: ``theirs``, ``ours``, both without repetition.

    None where that depends on the results of batches that ended, and are not fetched yet.

    Parameters
    ----------
    theirs
        What `requests_in` returned.
    requests
        What `requests_of_run` returned.
    folder
        The run, for what is known of its requests from the batches before.
    """
    near = requests.join(theirs, on="digest", how="semi", maintain_order="left")
    fresh = near.filter(pl.col("attempt") == 0).with_columns(_NTH)
    matched = theirs.with_columns(_NTH).join(fresh, on=["digest", "nth"], how="left", maintain_order="left")
    names = matched.select("theirs", "ours").drop_nulls("ours")
    again = matched.filter(pl.col("ours").is_null()).select("theirs", "digest")
    known = near.filter(pl.col("attempt") > 0).join(again, on="digest", how="semi", maintain_order="left")
    if not known.height:
        return names
    answered: set[str] | None = set()
    if known["digest"].n_unique() < known.height:  # of equal ones it matters which have their answers
        answered = _answered(folder)
    if answered is None:
        return None
    pairs: list[tuple[str, str]] = []
    rest = again.rows()
    called = _called(folder)
    known = known.sort("attempt", maintain_order=True)
    has_answer = known["ours"].is_in(pl.Series(list(answered), dtype=pl.String).implode())
    for pool in (known.filter(~has_answer), known.filter(has_answer)):
        rest = _claim_from(pool, rest, called, pairs)
    return names.vstack(pl.DataFrame(pairs, schema=names.schema, orient="row"))


def _claim_from(
    pool: pl.DataFrame, theirs: list[tuple[str, bytes]], called: dict[str, str], pairs: list[tuple[str, str]]
) -> list[tuple[str, bytes]]:
    """Pair each of theirs with an equal one of the pool, preferably the one it was before; return the rest."""
    free: dict[bytes, dict[str, None]] = {}
    for body_digest, ours in pool.select("digest", "ours").iter_rows():
        free.setdefault(body_digest, {})[ours] = None
    rest = theirs
    for is_same in (True, False):
        theirs, rest = rest, []
        for name, body_digest in theirs:
            equal = free.get(body_digest, {})
            ours = called.get(name, name) if is_same else next(iter(equal), None)
            if ours in equal:
                del equal[ours]
                pairs.append((name, ours))
            else:
                rest.append((name, body_digest))
    return rest


def _called(folder: RunFolder) -> dict[str, str]:
    """Return what the requests of other batches are called here."""
    called: dict[str, str] = {}
    for part in folder.parts():
        if part.adopted:
            names = folder.read_frame(folder.renamed_path(part.number))
            called |= dict(names.select("theirs", "ours").rows())
    return called


def _answered(folder: RunFolder) -> set[str] | None:
    """Return the custom_ids of the requests that succeeded; None where there are results to fetch first."""
    custom_ids: set[str] = set()
    for part in folder.parts():
        submissions = folder.submissions(part.number)
        if any(submission.has_files and submission.stage != "downloaded" for submission in submissions):
            return None
        custom_ids.update(answers_of_part(folder, part).filter(pl.col("code").is_null())["custom_id"])
    return custom_ids


def write_renamed(folder: RunFolder, theirs: Path, names: pl.DataFrame, part: PartRecord) -> PartRecord:
    """Write a part that holds the requests of another file under our ids; return its record, not written yet.

    Parameters
    ----------
    folder
        The run.
    theirs
        The other file; it is removed.
    names
        What `match` returned.
    part
        The record, with nothing in it yet that depends on the lines.
    """
    record = write_input_file(folder, part, _renamed_lines(theirs, dict(names.rows())))
    folder.write_frame(folder.renamed_path(part.number), names)
    folder.remove_file(theirs)
    return record


def _renamed_lines(theirs: Path, ours: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield our custom_id and our line of each request in their file that is one of ours."""
    with open_input(theirs) as handle:
        for line in handle:
            request = wire_format.read_request(line)
            if request is not None and request.custom_id in ours:
                custom_id = ours[request.custom_id]
                yield custom_id, wire_format.rename_request(line, custom_id)


def remove_requests(folder: RunFolder, part: PartRecord, taken: Collection[str]) -> None:
    """Take some requests, or all, out of a part that is not submitted.

    The file is written before the record. After a crash in between it is written again.
    """
    record = write_input_file(folder, part, (pair for pair in lines_of(folder, part.number) if pair[0] not in taken))
    # Failed batches of the old file: their errors do not hold for the new one.
    folder.remove_submissions(part.number)
    trigger("after_remainder")
    folder.write_part(record)
