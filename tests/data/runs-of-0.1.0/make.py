"""How the three runs beside this file were made, with the code of batchframe 0.1.0 at commit 896c44a.

Later versions must read, resume and retry them. Each has an answer with half of a surrogate pair, which 0.1.0 could not
read: it noted the row as ``malformed_line``.

``half-done``: stopped in the middle. Parts 0 and 1 were downloaded and parsed, the batch of part 2 is in progress, and
part 3 waits for its turn (``max_in_flight=1``). In part 1 one row was refused for its rate, one by the content filter.

``before-retry``: stopped between preparing another attempt and submitting it. The row refused for its rate and the one
that 0.1.0 could not read are in part 1, which 0.1.0 would have submitted next.

``finished``: typed answers and the same kinds of rows, with ``max_attempts=1``. It was read in another order and as
another type, and `Run.retry` asked once more for the row refused for its rate.

The service is called http://service/v1 in all three; the tests put the address of their own in its place.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import polars as pl

import batchframe as bf
from batchframe import _openai
from batchframe._events import set_trigger
from batchframe.testing import Emulator, emulator

HERE = Path(__file__).parent
HALF_DONE = pl.DataFrame({"n": range(26), "text": [None if n == 9 else f"text {n}" for n in range(26)]})
FINISHED = pl.DataFrame({"n": range(8), "text": [f"text {n}" for n in range(8)]})
MOOD = pl.Struct({"mood": pl.String, "score": pl.Float64})


def ask_half_done(emu: Emulator, folder: Path) -> bf.Run:
    return bf.submit(
        HALF_DONE, "Repeat {text}", client=emu.client(), model="gpt-4o-mini", temperature=0, run_dir=folder,
        poll_seconds=0.02, limits=bf.Limits(max_requests=10, max_in_flight=1),
    )  # fmt: skip


def ask_finished(emu: Emulator, folder: Path, frame: pl.DataFrame = FINISHED) -> bf.Run:
    return bf.submit(
        frame, "How is {text}?", client=emu.client(), model="gpt-4o-mini", response_format=MOOD, run_dir=folder,
        poll_seconds=0.02, max_attempts=1, include=["model", "raw"],
    )  # fmt: skip


def spoil(replacements: dict[str, tuple[bytes, bytes]]) -> None:
    """Change bytes of some result lines on their way here, as a service with a fault of its own would write them."""
    download = _openai.OpenAIClient.download

    def spoiled(self, file_id, handle):
        start = handle.tell()
        download(self, file_id, handle)
        handle.flush()
        with Path(handle.name).open("rb") as written:
            written.seek(start)
            lines = written.readlines()
        handle.seek(start)
        handle.truncate()
        for line in lines:
            changes = [each for name, each in replacements.items() if f'"{name}"'.encode() in line]
            handle.write(functools.reduce(lambda text, change: text.replace(*change), changes, line))

    _openai.OpenAIClient.download = spoiled


def keep(folder: Path, name: str, service: str) -> None:
    kept = HERE / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.lock", "lease*", ".lease*", ".gitignore"))
    for path in kept.rglob("*.json"):
        path.write_text(path.read_text().replace(service, "http://service/v1"))


def faults(emu: Emulator, limited: str, filtered: str) -> None:
    emu.row_fault("rate_limited", custom_ids=[limited])
    emu.row_fault("status", custom_ids=[filtered], status=400, code="content_filter", message="filtered", attempts=None)


def make_half_done(root: Path) -> None:
    with emulator() as emu:
        faults(emu, "row-3", "row-7")
        spoil({"row-5": (b"text 5", rb"text 5 \ud83d")})
        emu.batch_fault("stuck", skip=2, phase="in_progress")
        run = ask_half_done(emu, root / "half-done")
        for _ in range(200):
            status = run.advance()
            if status.batches.get("in_progress") and run.batches()["part"].max() == 2:
                break
        keep(run.path, "half-done", emu.base_url)


class Killed(BaseException):
    """What stops a run where a signal would."""


def stop() -> None:
    raise Killed


def make_before_retry(root: Path) -> None:
    with emulator() as emu:
        faults(emu, "row-3", "row-7")
        spoil({"row-5": (b"text 5", rb"text 5 \ud83d")})
        set_trigger("before_settle", stop)
        run = bf.submit(
            FINISHED, "Repeat {text}", client=emu.client(), model="gpt-4o-mini", temperature=0,
            run_dir=root / "before-retry", poll_seconds=0.02,
        )  # fmt: skip
        with contextlib.suppress(Killed):
            run.wait()
        keep(run.path, "before-retry", emu.base_url)


def make_finished(root: Path) -> None:
    with emulator() as emu:
        faults(emu, "row-3", "row-7")
        spoil({
            "row-5": (rb'{\"mood\": \"', rb'{\"mood\": \"so so \ud83d'),
            "row-6": (b'"system_fingerprint":', b'"confidence": NaN, "system_fingerprint":'),
        })  # fmt: skip
        run = ask_finished(emu, root / "finished")
        run.wait()
        run.retry(codes="rate_limit_exceeded").wait()
        ask_finished(emu, run.path, FINISHED.reverse()).result()
        run.reparse(response_format=None).result()
        keep(run.path, "finished", emu.base_url)


if __name__ == "__main__":
    assert version("batchframe") == "0.1.0", "only the version that a fixture is named for can make it"
    with tempfile.TemporaryDirectory() as folder:
        makers = {"half-done": make_half_done, "before-retry": make_before_retry, "finished": make_finished}
        makers[sys.argv[1]](Path(folder))
