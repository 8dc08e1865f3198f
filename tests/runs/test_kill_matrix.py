"""kill -9 at every named point, once and twice, while the service is at its worst; then the same script again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow
N = 30
POINTS = [
    "before_upload", "after_upload_call", "after_upload", "before_create", "after_create_call", "after_create",
    "after_ended", "after_download", "after_part_input", "after_part_record", "before_settle",
]  # fmt: skip
TROUBLES = {
    "late create": lambda emu: emu.fault("create_batch", "late", seconds=0.4, times=2),
    "late list": lambda emu: emu.batch_fault("list_late", seconds=0.2, times=None),
    "no metadata": lambda emu: emu.batch_fault("no_metadata", times=None),
    "lost replies": lambda emu: [emu.fault(call, "reset_after", skip=1) for call in ("create_file", "create_batch")],
    "slow validation": lambda emu: emu.batch_fault("slow", phase="validating", seconds=0.3),
    "expiry": lambda emu: emu.batch_fault("expire", at=0.5),
}


KEY_POINTS = ("after_upload_call", "after_create_call", "after_download")
MATRIX = [
    *(("openai", trouble, point) for trouble in ("late create", "late list", "no metadata") for point in POINTS),
    *(("openai", trouble, point) for trouble in list(TROUBLES)[3:] for point in KEY_POINTS),
    *(("azure", "late create", point) for point in POINTS),
]


def program(emu, tmp_path):
    made = f'openai.OpenAI(api_key="k", base_url={emu.base_url!r})'
    if "Azure" in type(emu.client()).__name__:
        made = f'openai.AzureOpenAI(api_key="k", azure_endpoint={emu.endpoint!r}, api_version="2024-10-21")'
    code = f"""
        import os, signal, sys, warnings, openai, polars as pl, batchframe as bf
        from batchframe._core import events
        left = [int(sys.argv[2])]
        def maybe():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1]:
            events.set_trigger(sys.argv[1], maybe)
        out = bf.run(pl.DataFrame({{"n": range({N})}}), "Repeat {{n}}", client={made}, model="gpt-4o-mini",
                     poll_seconds=0.02, settle_seconds=1.0, run_dir={os.fspath(tmp_path / "run")!r},
                     limits=bf.Limits(max_requests=12))
        assert out["n"].to_list() == list(range({N}))
        assert all(f" {{n}}." in text for n, text in zip(out["n"], out["response"]))
        print(out["error"].null_count())
    """
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(arguments, *more):
    return subprocess.run([*arguments, *more], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("dialect", "trouble", "point"), MATRIX)
def test_killed_twice_and_begun_again(tmp_path, dialect, trouble, point, emulate):
    with emulate(dialect) as service:
        service.row_fault("rate_limited", custom_ids=["row-3", "row-17"])
        TROUBLES[trouble](service)
        arguments = program(service, tmp_path)
        killed = run(arguments, point, "1")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = run(arguments, point, "2")  # the second time the same point is reached, if it is
        assert again.returncode in {0, -signal.SIGKILL}, again.stderr
        done = run(arguments, "", "0")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(N)
        assert service.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(N)}
