"""Measure batchframe against its goals, and the notebook loop beside it: ``make bench``.

    python benchmarks/run.py [--rows 200000] [--repeat 3] [--only render,parse,client,import] [--memory]

Rates are bytes of request or result lines per second of CPU time, over all threads. A ratio is the median of loop ÷
ours over repetitions in turn. The server runs in another process, so its CPU time does not count; neither do imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import LONG_WORDS, SHORT_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
POLL_SECONDS = 0.5
MEMORY_ROWS = (250_000, 1_000_000)
_KINDS = ("render", "parse", "client", "import", "memory")
# Left out of the environment: these could send a measurement to a real service, or make every import compile again.
_FOREIGN = ("OPENAI_", "AZURE_OPENAI_", "BATCHFRAME_", "PYTHONDONTWRITEBYTECODE")
_SERVE = "from batchframe.emulator import Settings, serve; serve(port=0, settings=Settings(seed=1))"
_IMPORT = "import json, measure; print(json.dumps(measure.timed(lambda: exec({!r}, {{}}))))"
_HEAD = ("work", "ours", "loop", "ratio", "goal", "met")


class Bench:
    """Run the measurements in a scratch folder and collect the lines of the table."""

    def __init__(self, folder: Path, rows: int, repeat: int) -> None:
        self.folder = folder
        self.rows = rows
        self.repeat = repeat
        self.lines: list[tuple[str, ...]] = []

    # -- the goals

    def render(self) -> None:
        """1. Rows → input files on disk."""
        long_rows = max(100, self.rows // 20)
        for kind, rows, words in (("short", self.rows, SHORT_WORDS), ("of 10 kB", long_rows, LONG_WORDS)):
            figures = self._steps("render", rows, words)
            self._rates(f"rows → input files, {rows:,} {kind}", figures, rate=150, ratio=5)

    def parse(self) -> None:
        """2. Result files → columns."""
        figures = self._steps("parse", self.rows, SHORT_WORDS)
        self._rates(f"result files → columns, {self.rows:,} lines", figures, rate=200, ratio=3)

    def client(self) -> None:
        """3. A whole run, with the server in another process."""
        scripts = {"ours": ("client_ours.py", "frame"), "loop": ("client_loop.py",)}
        figures: dict[str, list[dict[str, float]]] = {side: [] for side in scripts}
        for _ in range(max(2, self.repeat // 2)):
            for side, script in scripts.items():
                figures[side].append(self._client(self.rows, *script))
        ours, loop = (_median(figures[side], "cpu") for side in scripts)
        ratio = _ratio(figures["ours"], figures["loop"], "cpu")
        work = f"whole run, {self.rows:,} short rows"
        self._line(
            (f"{work}: CPU", f"{ours:.2f} s", f"{loop:.2f} s", f"{ratio:.1f} x", "≥ 2 x (aim 3)"), met=ratio >= 2
        )
        ours, loop = (max(one["peak"] for one in figures[side]) / 1e6 for side in scripts)
        ratio = loop / ours
        self._line((f"{work}: peak", f"{ours:.0f} MB", f"{loop:.0f} MB", f"{ratio:.1f} x", "≥ 1 x"), met=ratio >= 1)
        ours, loop = (_median(figures[side], "wall") for side in scripts)
        print(f"    wall time, most of it the server's: {ours:.1f} s, loop {loop:.1f} s")

    def memory(self) -> None:
        """4. Peak memory, Parquet to Parquet."""
        peaks = []
        for rows in MEMORY_ROWS:
            figures = self._client(rows, "client_ours.py", "parquet")
            peaks.append(figures["peak"] / 1e6)
            print(
                f"    {rows:,} rows: {peaks[-1]:.0f} MB, CPU {figures['cpu']:.1f} s, wall {figures['wall']:.0f} s",
                flush=True,
            )
        small, large = peaks
        work = f"Parquet → Parquet, peak at {MEMORY_ROWS[1]:,} rows"
        self._line((work, f"{large:.0f} MB", "", "", "≤ 400 MB"), met=large <= 400)
        work = f"the same, compared with {MEMORY_ROWS[0]:,} rows ({small:.0f} MB)"
        self._line((work, f"{large:.0f} MB", "", f"{large / small:.2f} x", "≤ 1.15 x"), met=large / small <= 1.15)

    def imports(self) -> None:
        """5. Import time."""
        statements = {"ours": "import batchframe", "base": "import polars, openai"}
        for statement in statements.values():  # so that the files are compiled and in the cache, for both
            self._python("-c", _IMPORT.format(statement))
        figures: dict[str, list[dict[str, float]]] = {side: [] for side in statements}
        for _ in range(max(5, self.repeat)):
            for side, statement in statements.items():
                figures[side].append(self._python("-c", _IMPORT.format(statement)))
        ours, base = (_median(figures[side], "cpu") for side in statements)
        ratio = 1 / _ratio(figures["ours"], figures["base"], "cpu")
        work = f"import batchframe (polars, openai: {base:.2f} s)"
        self._line((work, f"{ours:.2f} s", "", f"{ratio:.2f} x", "≤ 1.3 x"), met=ratio <= 1.3)

    # -- the measurements

    def _steps(self, step: str, rows: int, words: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return self._python("steps.py", step, folder, str(rows), str(words), str(self.repeat))

    def _client(self, rows: int, script: str, *kind: str) -> dict[str, float]:
        """Run one client against a fresh server, each in a process of its own."""
        source = self.folder / f"reviews-{rows}.parquet"
        if not source.exists():
            self._python("data.py", os.fspath(source), str(rows))
        with tempfile.TemporaryDirectory(dir=self.folder) as folder, serving() as base_url:
            figures: dict[str, float] = self._python(
                script, *kind, folder, os.fspath(source), base_url, str(POLL_SECONDS)
            )
        return figures

    def _python(self, *arguments: str) -> Any:
        """Run Python in this folder and return the JSON that it prints, if any."""
        command = [sys.executable, *arguments]
        environment = _environment() | {"PYTHONPYCACHEPREFIX": os.fspath(self.folder / "compiled")}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=HERE, env=environment)
        return json.loads(done.stdout) if done.stdout else None

    def _rates(self, work: str, figures: dict[str, Any], *, rate: float, ratio: float) -> None:
        ours, loop = (
            statistics.median(figures["bytes"][side] / 1e6 / one["cpu"] for one in figures[side])
            for side in ("ours", "loop")
        )
        times = _ratio(figures["ours"], figures["loop"], "cpu")
        cells = (work, f"{ours:.0f} MB/s", f"{loop:.0f} MB/s", f"{times:.1f} x", f"≥ {rate:g} MB/s, ≥ {ratio:g} x")
        self._line(cells, met=ours >= rate and times >= ratio)

    def _line(self, cells: tuple[str, ...], *, met: bool) -> None:
        """Add a line to the table and print it at once."""
        self.lines.append((*cells, "yes" if met else "NO"))
        print("  " + " | ".join(cell for cell in self.lines[-1] if cell), flush=True)


def _median(ones: list[dict[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in ones)


def _ratio(ours: list[dict[str, float]], others: list[dict[str, float]], key: str) -> float:
    """Return the median of other ÷ ours over pairs that were measured in turn."""
    return statistics.median(other[key] / one[key] for one, other in zip(ours, others, strict=True))


def _environment() -> dict[str, str]:
    """Return the environment without the variables that would change a measurement."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


@contextmanager
def serving() -> Iterator[str]:
    """Start the emulator in a process of its own and yield its base URL."""
    process = subprocess.Popen([sys.executable, "-c", _SERVE], stderr=subprocess.PIPE, text=True, env=_environment())
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "http" not in line:
            raise RuntimeError(f"the emulator did not start: {line}{process.stderr.read()}")
        yield line[line.index("http") :].strip()
    finally:
        process.terminate()
        process.wait(timeout=60)


def _table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(_HEAD, *lines, strict=True)]
    rows = (_HEAD, tuple("-" * width for width in widths), *lines)
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main() -> None:
    """Run the chosen measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the frames (the goals hold for 200,000)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="repetitions; of the whole run half as many, but at least 2"
    )
    parser.add_argument("--only", default=",".join(_KINDS[:-1]), help=f"a comma-separated list of {', '.join(_KINDS)}")
    parser.add_argument(
        "--memory", action="store_true", help=f"also measure peak memory at {MEMORY_ROWS[1]:,} rows; takes minutes more"
    )
    given = parser.parse_args()
    kinds = dict.fromkeys(given.only.split(",") + ["memory"] * given.memory)
    if not kinds.keys() <= set(_KINDS) or given.rows < 1 or given.repeat < 1:
        parser.error(f"--only takes a list of {', '.join(_KINDS)}; --rows and --repeat are 1 or more")
    packages = ", ".join(f"{name} {version(name)}" for name in ("batchframe", "polars", "openai", "msgspec"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, {platform.system()}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchframe-bench-") as folder:
        bench = Bench(Path(folder), given.rows, given.repeat)
        goals = dict(zip(_KINDS, (bench.render, bench.parse, bench.client, bench.imports, bench.memory), strict=True))
        for kind in kinds:
            goals[kind]()
    print(f"\n{_table(bench.lines)}\n\n{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
