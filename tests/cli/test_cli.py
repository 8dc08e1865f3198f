"""The command, in this process and as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._api.option_table import OPTIONS
from batchframe._providers import openai as _openai
from batchframe._runs import run
from batchframe.cli import main
from batchframe.cli._commands import group
from batchframe.testing import emulator

COMMAND = Path(sys.executable).with_name("batchframe")
PROMPT = "Classify as positive, negative or neutral: {text}"
TEXTS = ["Great sound.", "Broke after a week.", "It is blue."]
LABELS = ["positive", "negative", "neutral"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with reviews.parquet."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    pl.DataFrame({"text": TEXTS}).write_parquet("reviews.parquet")
    return folder


@pytest.fixture
def service(emu, here, monkeypatch):
    """The emulator as the service of the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", emu.base_url)
    made = []
    make = _openai.client_from_environment
    monkeypatch.setattr(_openai, "client_from_environment", lambda: made.append(make()) or made[-1])
    yield emu
    # The end of the process closes them for the command; it does not come here.
    for client in made:
        client.close()


def run_args(*more, source="reviews.parquet", prompt=PROMPT):
    return ["run", source, "out.parquet", "--prompt", prompt, "--model", "gpt-4o-mini", "--poll-seconds", "0.05", *more]


def only_error(capsys):
    """Return the one message on standard error, with nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert err.count("\n") <= 2, err
    assert "Traceback" not in err
    return err.removeprefix("error: ").rstrip("\n")


# -- run


@pytest.mark.parametrize("from_file", [False, True])
def test_answers_of_a_schema(service, from_file):
    schema = '{"type": "object", "properties": {"label": {"enum": ["positive", "negative", "neutral"]}}}'
    Path("schema.json").write_text(schema, encoding="utf-8")
    assert main(run_args("--response-format", "@schema.json" if from_file else schema)) == 0
    found = pl.read_parquet("out.parquet")["response"]
    assert found.struct.field("label").cast(pl.String).to_list() == LABELS


def test_invalid_response_format(here, capsys):
    assert main(run_args("--response-format", "{nope")) == 2
    assert "'{nope' is not JSON" in only_error(capsys)
    assert main(run_args("--response-format", "7")) == 2
    assert "response_format must be" in only_error(capsys)


def test_images(service):
    pl.DataFrame({"text": ["a", "b"], "url": ["https://example.com/a.png", "a.png"]}).write_parquet("reviews.parquet")
    assert main(run_args("--images", "url", "--image-detail", "low")) == 3
    assert pl.read_parquet("out.parquet")["error"].struct.field("code").to_list() == [None, "invalid_input"]


def test_another_endpoint(service):
    more = ["--endpoint", "/v1/embeddings", "--param", "dimensions=4", "--max-in-flight", "1", "--max-requests", "2"]
    arguments = [*run_args(*more), "--model", "text-embedding-3-small"]
    assert main(arguments) == 0
    assert pl.read_parquet("out.parquet")["response"].dtype == pl.Array(pl.Float32, 4)


def test_run_writes_the_answers_and_prints_the_status(service, capsys):
    assert main(run_args()) == 0
    assert pl.read_parquet("out.parquet")["response"].to_list() == LABELS
    out, err = capsys.readouterr()
    assert "3 succeeded" in out
    assert "1 completed" in out
    assert re.search(r"result +out.parquet", out)
    assert err == ""


def test_repeated_command_costs_nothing(service):
    assert main(run_args()) == 0
    Path("out.parquet").unlink()
    assert main(run_args()) == 0
    assert pl.read_parquet("out.parquet")["response"].to_list() == LABELS
    assert service.calls()["create_batch"] == 1


def test_rows_that_did_not_succeed_are_exit_code_3(service, capsys):
    pl.DataFrame({"text": ["Great sound.", None]}).write_parquet("reviews.parquet")
    assert main(run_args()) == 3
    out, err = capsys.readouterr()
    assert "2: 1 succeeded, 1 not sent" in out
    assert err == "warning: 1 of 2 rows did not succeed: 1 null_input. See their error column, or run.errors()\n"
    assert pl.read_parquet("out.parquet")["response"].to_list() == ["positive", None]


def test_allow_failed_makes_them_exit_code_0(service):
    pl.DataFrame({"text": ["Great sound.", None]}).write_parquet("reviews.parquet")
    assert main(run_args("--allow-failed")) == 0


@pytest.mark.parametrize(("end", "prompt"), [("", PROMPT), ("\n", PROMPT), ("\n\n", PROMPT + "\n")])
def test_a_prompt_from_a_file(here, monkeypatch, end, prompt):
    seen = {}
    monkeypatch.setattr(bf, "run_parquet", lambda *_, **options: seen.update(options) or 1 / 0)
    Path("prompt.txt").write_bytes(b"\xef\xbb\xbf" + (PROMPT + end).encode())
    Path("system.txt").write_text("Grüße.")
    main(run_args("--system", "@system.txt", prompt="@prompt.txt"))
    assert seen["prompt"] == prompt
    assert seen["system"] == "Grüße."


def test_options_and_parameters_reach_the_call(here, monkeypatch):
    seen = {}
    monkeypatch.setattr(bf, "run_parquet", lambda *paths, **options: seen.update(options, paths=paths) or 1 / 0)
    given = [
        "--param",
        "temperature=0",
        "--param",
        "stop=END",
        "--param",
        'logit_bias={"1": -1}',
        "--param",
        "user=a=b",
        "--param",
        "prompt_cache_key=123",
        "--param",
        "store=True",
    ]
    given += ["--custom-id", "id", "--prefix", "p_", "--include", "model", "--include", "raw", "--on-null", "raise"]
    given += ["--name", "n", "--run-dir", "d", "--max-requests", "7", "--max-bytes", "900", "--no-progress"]
    given += ["--endpoint", "/v1/chat/completions", "--timeout-seconds", "9", "--dedupe", "--reuse", "all"]
    main(run_args(*given))
    assert seen == {
        "paths": ("reviews.parquet", "out.parquet"),
        "prompt": PROMPT,
        "model": "gpt-4o-mini",
        "temperature": 0,
        "stop": "END",
        "logit_bias": {"1": -1},
        "user": "a=b",
        "prompt_cache_key": "123",  # which takes text
        "store": True,
        "custom_id": "id",
        "prefix": "p_",
        "include": ("model", "raw"),
        "on_null": "raise",
        "name": "n",
        "run_dir": "d",
        "limits": bf.Limits(max_requests=7, max_bytes=900),
        "progress": False,
        "endpoint": "/v1/chat/completions",
        "timeout_seconds": 9.0,
        "dedupe": True,
        "reuse": "all",
        "poll_seconds": 0.05,
    }


def test_dedupe_and_reuse(service, capsys):
    assert main(run_args()) == 0
    pl.DataFrame({"text": ["It is red.", *TEXTS, "It is red."]}).write_parquet("reviews.parquet")
    assert main(run_args("--dedupe", "--reuse", "all", "--include", "reused", "--progress")) == 0
    assert pl.read_parquet("out.parquet")["reused"].to_list() == [False, True, True, True, False]
    assert service.ledger()["executions"] == 4
    assert "reuse: answers are taken from earlier runs (3 of run " in capsys.readouterr().err
    assert main(run_args("--reuse", "nowhere")) == 2
    assert "there is no run in" in only_error(capsys)


def test_limits_make_several_batches(service, capsys):
    assert main(run_args("--max-requests", "1")) == 0
    assert "3 completed" in capsys.readouterr().out
    assert service.calls()["create_batch"] == 3


# -- exit code 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "SRC"),
        (["--prompt", "x"], "SRC"),
        (["reviews.parquet", "out.parquet", "--model", "m"], "--prompt"),
        (["reviews.parquet", "out.parquet", "--prompt", "{text}"], "--model"),
        (run_args("--parm", "x=1")[1:], "--parm"),
        (run_args("--param", "temperature")[1:], "name=value"),
        (run_args("--param", "=1")[1:], "name=value"),
        (run_args("--param", "seed=1", "--param", "seed=2")[1:], "passed twice"),
        (run_args("--param", "model=x")[1:], "--model"),
        (run_args("--param", "max_bytes=5")[1:], "--max-bytes"),
        (run_args("--param", "temperatur=1")[1:], "temperature"),
        (run_args("--param", "stream=true")[1:], "stream"),
        (run_args("--param", "temperature=hot")[1:], "temperature must be a number, got 'hot'."),
        (run_args("--param", "max_tokens=1e3")[1:], "max_tokens must be a whole number, got 1000.0: write 1000."),
        (run_args("--param", "logit_bias={1: 2}")[1:], "logit_bias must be a dict, got '{1: 2}'."),
        (run_args("--param", "reasoning_effort=hgih")[1:], "Did you mean 'high'?"),
        (run_args("--param", "max_output_tokens=9")[1:], "It is max_completion_tokens there."),
        (run_args("--endpoint", "/v1/chat/completion")[1:], "/v1/chat/completions"),
        (run_args("--include", "modell")[1:], "model"),
        (run_args("--on-null", "drop")[1:], "skip"),
        (run_args("--max-requests", "0")[1:], "max_requests"),
        (run_args("--poll-seconds", "-1")[1:], "poll_seconds"),
        (run_args(prompt="@none.txt")[1:], "none.txt"),
        (run_args(prompt="@reviews.parquet")[1:], "UTF-8"),
        (run_args(prompt="About {txt}")[1:], "Did you mean 'text'?"),
        (run_args(prompt='{"a": {text}}')[1:], "{{"),
        (run_args("--custom-id", "id")[1:], "id"),
        (run_args(source="none.parquet")[1:], "none.parquet"),
        (run_args(source="text.parquet")[1:], "text.parquet"),
        (["reviews.parquet", "none/out.parquet", "--prompt", "{text}", "--model", "m"], "none"),
        (["reviews.parquet", "reviews.parquet", "--prompt", "{text}", "--model", "m"], "same file"),
    ],
)
def test_wrong_arguments_are_one_message(service, capsys, args, message):
    Path("text.parquet").write_text("no Parquet")
    assert main(["run", *args]) == 2
    assert message in only_error(capsys)
    assert service.calls().get("upload_file", 0) == 0
    assert not Path("out.parquet").exists()


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["status"], ["demo", "--rows", "0"], ["emulator", "--port", "99999"]]
)
def test_wrong_arguments_of_other_commands(here, capsys, args):
    assert main(args) == 2
    only_error(capsys)


def test_missing_key(here, capsys):
    assert main(run_args()) == 2
    assert "OPENAI_API_KEY" in only_error(capsys)


def test_environment_with_two_services(service, capsys, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://example.invalid")
    assert main(run_args()) == 2
    assert "AZURE_OPENAI_ENDPOINT" in only_error(capsys)


def test_a_wrong_key(service, capsys):
    service.configure(api_keys=["sk-right"])
    assert main(run_args()) == 2
    message = only_error(capsys)
    assert "401" in message
    assert "sk-test" not in message


def test_a_run_dir_of_another_run(service, capsys):
    assert main(run_args("--run-dir", "d")) == 0
    capsys.readouterr()
    assert main(run_args("--run-dir", "d", prompt="Long or short: {text}")) == 2
    only_error(capsys)


def test_run_dir_that_is_not_a_run(service, capsys):
    assert main(run_args("--run-dir", ".")) == 2
    assert "reviews.parquet" in only_error(capsys)
    assert Path("reviews.parquet").exists()


@pytest.mark.parametrize("folder", ["none", "."])
def test_status_of_no_run(here, capsys, folder):
    assert main(["status", folder]) == 2
    only_error(capsys)


# -- exit code 1


def test_unreachable_service(service, capsys, monkeypatch):
    monkeypatch.setattr(run, "_UNREACHABLE_SECONDS", 0.0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert main(run_args()) == 1
    assert "cannot be reached" in only_error(capsys)


def test_rejected_input_file(service, capsys):
    args = run_args()
    args[args.index("gpt-4o-mini")] = "no-such-model"
    assert main(args) == 1
    assert "no-such-model" in only_error(capsys)


def test_unexpected_errors_are_one_line(here, capsys, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a\nb")

    monkeypatch.setattr(bf, "run_parquet", fail)
    assert main(run_args()) == 1
    assert "KeyError" in only_error(capsys)
    monkeypatch.setenv("BATCHFRAME_DEBUG", "1")
    with pytest.raises(KeyError):
        main(run_args())


def test_missing_click_names_the_extra():
    code = "import sys; sys.modules['click'] = None; from batchframe.cli import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith('error: the command batchframe needs its extra: pip install "batchframe[cli]"')


def test_demo_without_the_emulator_names_the_extra():
    code = "import sys; sys.modules['starlette'] = None; from batchframe.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'error: the emulator needs its extra: pip install "batchframe[emulator]"' in done.stderr


# -- exit code 4, and status


def test_timeout_is_exit_code_4(service, capsys):
    service.configure(progression="stepped")
    assert main(run_args("--timeout-seconds", "0.3", "--run-dir", "d")) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "resume by repeating the call" in err.lower()

    assert main(["status", "d"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"state +running", out)
    assert "3 pending" in out
    assert re.search(r"run +/.*/d\n", out)

    service.configure(progression="instant")
    assert main(run_args("--run-dir", "d")) == 0
    capsys.readouterr()
    assert main(["status", "d"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"state +finished", out)
    assert "3 succeeded" in out
    assert "waits for" not in out
    assert service.calls()["create_batch"] == 1


def test_status_needs_no_service_and_refresh_polls_it(service, capsys, monkeypatch):
    service.configure(progression="stepped")
    assert main(run_args("--timeout-seconds", "0.3", "--run-dir", "d")) == 4
    service.step(2)
    capsys.readouterr()
    before = service.calls()
    assert main(["status", "d"]) == 0
    assert service.calls() == before
    assert "1 validating" in capsys.readouterr().out
    assert main(["status", "d", "--refresh"]) == 0
    assert "1 validating" not in capsys.readouterr().out

    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["status", "d"]) == 0
    capsys.readouterr()
    assert main(["status", "d", "--refresh"]) == 2
    assert "OPENAI_API_KEY" in only_error(capsys)


def test_resume_finishes_the_run(service, capsys):
    service.configure(progression="stepped")
    assert main(run_args("--timeout-seconds", "0.1", "--run-dir", "d")) == 4
    assert main(["resume", "d", "--timeout-seconds", "0.1"]) == 4
    service.row_fault("status", status=400, custom_ids=["row-0"])
    service.configure(progression="instant")
    assert main(["resume", "d"]) == 3
    assert main(["resume", "d", "--allow-failed"]) == 0
    assert "2 succeeded, 1 failed" in capsys.readouterr().out
    assert service.calls()["create_batch"] == 1


def test_cancel_keeps_the_answers(service, capsys):
    service.batch_fault("stuck", at=0.4)
    assert main(run_args("--timeout-seconds", "0.1", "--run-dir", "d")) == 4
    eventually(lambda: service.ledger(summary=True)["executions"])
    assert main(["cancel", "d"]) == 0
    assert re.search(r"state +stopped\nrows +3: 1 succeeded, 2 failed", capsys.readouterr().out)
    assert service.calls()["cancel_batch"] == 1


def test_a_pilot_that_fails_stops_the_run(service, capsys):
    service.row_fault("status", status=400, code="unsupported_value", attempts=None)
    assert main(run_args("--pilot", "2")) == 1
    assert "all 2 rows of the pilot failed: unsupported_value" in only_error(capsys)
    assert service.ledger(summary=True)["executions"] == 2


@contextlib.contextmanager
def process(*args, **environment):
    started = subprocess.Popen(
        [COMMAND, *args], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM], ids=lambda kind: kind.name)
def test_signals_detach(service, kind):
    service.configure(progression="stepped")
    with process(*run_args()) as started:
        eventually(lambda: service.calls().get("create_batch", 0) and service.calls().get("retrieve_batch", 0))
        started.send_signal(kind)
        out, err = started.communicate(timeout=20)
    assert started.returncode == 4, err
    assert out == ""
    assert "Traceback" not in err
    assert "detached" in err
    assert "same command" in err
    assert service.calls().get("cancel_batch", 0) == 0

    service.configure(progression="instant")
    assert main(run_args()) == 0
    assert pl.read_parquet("out.parquet")["response"].to_list() == LABELS
    assert service.calls()["create_batch"] == 1


# -- the rest


def test_progress_goes_to_stderr(service, capfd):
    assert main(run_args("--progress")) == 0
    out, err = capfd.readouterr()
    assert "3/3" in err
    assert "3/3" not in out


def test_closed_pipe(service):
    assert main(run_args("--run-dir", "d")) == 0
    with process("status", "d") as started:
        started.stdout.close()
        err = started.stderr.read()
        started.wait(timeout=60)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize(
    "encoding",
    [pytest.param("ascii", marks=pytest.mark.slow), pytest.param("latin-1", marks=pytest.mark.slow), "utf-8"],
)
def test_the_demo_as_a_new_user_sees_it(here, encoding):
    with process("demo", "--rows", "20", PYTHONIOENCODING=encoding, COLUMNS="80") as started:
        out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    assert "shape: (20, 5)" in out
    assert "definition" in out
    assert re.search(r"(people|software|hardware|culture)", out)
    assert "20 succeeded" in out
    assert "20/20" in err
    assert "nothing left this machine" in err
    assert "Traceback" not in err
    run_dir = Path(re.search(r"run +(/.*)", out)[1])
    assert (run_dir / "run.json").exists()


def test_the_demo_at_another_service(service, capsys):
    assert main(["demo", "--base-url", service.base_url, "--no-progress"]) == 0
    out, err = capsys.readouterr()
    assert "300 succeeded" in out
    assert "nothing left" not in err
    assert service.ledger(summary=True)["custom_ids"] == 300


def test_the_emulator_serves_until_interrupted(here):
    with process("emulator", "--port", "0") as started:
        url = re.search(r"http://127\.0\.0\.1:\d+/v1", started.stderr.readline())[0]
        with openai.OpenAI(api_key="sk-x", base_url=url) as client:
            frame = pl.DataFrame({"text": TEXTS})
            out = bf.run(frame, PROMPT, model="gpt-4o-mini", client=client, poll_seconds=0.05)
            assert out["response"].to_list() == LABELS
        started.terminate()
        out, err = started.communicate(timeout=20)
    assert started.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err


def test_emulator_on_a_port_in_use(here, capsys):
    with emulator() as taken:
        assert main(["emulator", "--port", re.search(r":(\d+)/", taken.base_url)[1]]) == 1
    assert "in use" in only_error(capsys)


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"batchframe \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("run", "status", "demo", "emulator"):
        assert f"\n  {command} " in out
        assert main([command, "--help"]) == 0
        assert len(capsys.readouterr().out) > 100


def test_help_lists_the_values_of_an_option():
    options = {parameter.name: parameter.metavar for parameter in group.commands["run"].params}
    literals = {option.name: re.findall(r'"(\w+)"', option.metadata["accepts"]) for option in OPTIONS
                if option.metadata["accepts"].startswith("Literal[") and option.name in options}  # fmt: skip
    assert literals.keys() == {"image_detail", "on_null"}
    assert {name: options[name] for name in literals} == {
        name: f"[{'|'.join(values)}]" for name, values in literals.items()
    }
