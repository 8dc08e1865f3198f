"""``read_batch``: answers of batches and result files made anywhere, joined to a frame or alone."""

from __future__ import annotations

import json
import types
import warnings

import polars as pl
import pytest
from test_account import batch, make

import batchframe as bf
from batchframe._api import result_sources
from batchframe._results.columns import CORE
from odd_service import OddService


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    """Only waiting takes time, and is not waited."""
    monkeypatch.setattr(result_sources, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(result_sources, "_SETTLE_SECONDS", 0.1)
    waits = []
    made_up = types.SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
    monkeypatch.setattr(result_sources, "time", made_up)


def good(custom_id, content="yes"):
    body = {"model": "m", "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}  # fmt: skip
    return {"custom_id": custom_id, "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None}


def bad(custom_id, code="batch_expired"):
    return {"custom_id": custom_id, "response": None, "error": {"code": code, "message": "said"}}


def jsonl(*lines):
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


def codes(frame):
    return frame["error"].struct.field("code").to_list()


IDS = pl.DataFrame({"id": ["a", "b", "c"], "n": [1, 2, 3]})


# -- files


def test_a_file_alone(tmp_path):
    (tmp_path / "out.jsonl").write_bytes(jsonl(good("b"), bad("a"), good("c", "no")))
    for source in (tmp_path / "out.jsonl", str(tmp_path / "out.jsonl"), [tmp_path / "out.jsonl"]):
        found = bf.read_batch(source)
        assert dict(found.schema) == CORE
        assert found["custom_id"].to_list() == ["b", "a", "c"]
        assert found["response"].to_list() == ["yes", None, "no"]
        assert codes(found) == [None, "batch_expired", None]
        assert found["usage"][0]["input_tokens"] == 3


def test_a_relative_path_without_a_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_bytes(jsonl(good("a")))
    assert bf.read_batch("results").height == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind):
    assert bf.read_batch(kind(jsonl(good("a"))))["response"].to_list() == ["yes"]


def test_a_frame_keeps_its_height_and_order():
    found = bf.read_batch(jsonl(good("c"), bad("a")), IDS, custom_id="id")
    assert found.columns == ["id", "n", *CORE]
    assert found.select("id", "n").equals(IDS)
    assert found["response"].to_list() == [None, None, "yes"]
    assert codes(found) == ["batch_expired", "missing", None]


def test_output_and_error_file(tmp_path):
    (tmp_path / "out.jsonl").write_bytes(jsonl(good("c"), good("a")))
    (tmp_path / "err.jsonl").write_bytes(jsonl(bad("b", "x")))
    found = bf.read_batch([tmp_path / "out.jsonl", tmp_path / "err.jsonl"], IDS, custom_id="id")
    assert codes(found) == [None, "x", None]


@pytest.mark.parametrize("with_frame", [True, False])
def test_the_first_success_counts_else_the_last_failure(with_frame):
    data = jsonl(bad("b", "one"), good("a", "first"), good("a", "second"), bad("a"), bad("b", "two"), good("c"))
    found = bf.read_batch(data, IDS if with_frame else None, custom_id="id" if with_frame else None).sort("custom_id")
    assert found["response"].to_list() == ["first", None, "yes"]
    assert codes(found) == [None, "two", None]


def test_ids_of_the_frame():
    answers = jsonl(good("row-1", "one"), good("7", "seven"))
    with pytest.warns(bf.BatchframeWarning, match=r"1 of 2 ids in the source, such as '7', .*are row-0, row-1, …"):
        found = bf.read_batch(answers, pl.DataFrame({"t": ["x", "y"]}))
    assert found["custom_id"].to_list() == ["row-0", "row-1"]
    assert found["response"].to_list() == [None, "one"]
    with pytest.warns(bf.BatchframeWarning, match="such as 'row-1', .*are those of its column 'custom_id'"):
        found = bf.read_batch(answers, pl.DataFrame({"custom_id": [7, 8]}))
    assert found["custom_id"].to_list() == [7, 8]  # theirs, as it was
    assert found["response"].to_list() == ["seven", None]
    assert found.columns == list(CORE)


def test_rows_may_share_an_id_or_have_none():
    found = bf.read_batch(jsonl(good("a")), pl.DataFrame({"id": ["a", None, "a"]}), custom_id="id")
    assert found["response"].to_list() == ["yes", None, "yes"]
    assert codes(found) == [None, "missing", None]


@pytest.mark.parametrize("frame", [IDS.lazy(), IDS.to_arrow()], ids=["lazy", "arrow"])
def test_frames_of_other_kinds(frame):
    found = bf.read_batch(jsonl(good("a"), good("b"), good("c")), frame, custom_id="id")
    assert isinstance(found, pl.DataFrame)
    assert codes(found) == [None] * 3


def test_no_rows_and_no_answers():
    assert dict(bf.read_batch(b"").schema) == CORE
    found = bf.read_batch(b"\n\n", IDS.clear(), custom_id="id")
    assert dict(found.schema) == dict(IDS.schema) | CORE
    assert codes(bf.read_batch([], IDS, custom_id="id")) == ["missing"] * 3


def test_malformed_lines_are_kept_or_counted():
    data = b"\xef\xbb\xbf" + jsonl(good("a"), b"", b'{"custom_id": "b", "response": {"bo', b"5", good("c"))
    with pytest.warns(bf.BatchframeWarning, match="1 of 4 lines of the bytes have no custom_id, .*the first is line 4"):
        found = bf.read_batch(data, IDS, custom_id="id")
    assert codes(found) == [None, "malformed_line", None]


NOT_ANSWERS = {
    b"a,b\n1,2\n": r"line 1: not JSON \(",
    b"\n\n[1, 2]\n": "line 3: a JSON list, not an object",
    b'{"a": 1}\n': r"line 1: an object without custom_id \(it has 'a'\)",
    b"{}": r"an object without custom_id \(it has no keys\)",
    b'{"custom_id": 5, "response": {}}': "its custom_id is not a string: '5'",
    b'{\n  "custom_id": "a",\n  "response": {}\n}\n': r"line 1: not JSON \(",
    b"\x1f\x8b\x08\x00\xff": "line 1: not JSON",
    b'{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {}}\n': "line 1 is a request: this is an input file",
}


@pytest.mark.parametrize("content", NOT_ANSWERS, ids=repr)
def test_files_without_answers(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(bf.InputError, match=NOT_ANSWERS[content]) as raised:
        bf.read_batch(path)
    assert "x.jsonl'" in str(raised.value)


def test_missing_files(tmp_path):
    with pytest.raises(bf.InputError, match=r"'no/such.jsonl' cannot be read: No such file"):
        bf.read_batch("no/such.jsonl")
    with pytest.raises(bf.InputError, match="cannot be read: Is a directory"):
        bf.read_batch(tmp_path)


@pytest.mark.parametrize(
    ("source", "frame", "custom_id", "error", "message"),
    [
        (5, None, None, bf.OptionError, "source must be the id of a batch, a path .* got int"),
        (" ", None, None, bf.OptionError, "source is an empty text"),
        (b"", None, "id", bf.OptionError, "custom_id='id' names a column of the frame, but there is no frame"),
        (b"", IDS, "idd", bf.InputError, r"custom_id is 'idd', but .*Did you mean 'id'\? Columns: 'id', 'n'"),
        (b"", IDS, 5, bf.OptionError, "custom_id must be the name of a column, got 5"),
        (b"", pl.DataFrame({"x": [1.5]}), "x", bf.InputError, "'x' must be String or an integer, got Float64"),
        (
            b"",
            pl.DataFrame({"custom_id": [1.5]}),
            None,
            bf.InputError,
            "'custom_id' must be String or an integer, got Float64",
        ),
        (b"", pl.DataFrame({"response": ["r"]}), None, bf.InputError, "already has a column 'response'"),
        (b"", pl.DataFrame({"custom_id": ["r"], "id": ["r"]}), "id", bf.InputError, "already has a column 'custom_id'"),
        (b"", pl.DataFrame({"response": ["r"]}), "response", bf.InputError, "the ids are in column 'response'"),
        (b"", [1, 2], None, bf.InputError, "expected a Polars DataFrame"),
    ],
)
def test_invalid_arguments(source, frame, custom_id, error, message):
    with pytest.raises(error, match=message):
        bf.read_batch(source, frame, custom_id=custom_id)


# -- batches


def test_a_batch_made_elsewhere(client):
    made = make(client, ["Great sound.", "Broke after a week."])
    found = bf.read_batch(made.id, pl.DataFrame({"id": ["c-1", "c-0", "c-2"]}), custom_id="id", client=client)
    assert found["response"].is_null().to_list() == [False, False, True]
    assert codes(found) == [None, None, "missing"]
    assert sorted(bf.read_batch(made.id, client=client)["custom_id"]) == ["c-0", "c-1"]


def test_a_batch_of_a_run_reads_as_the_run_did(client):
    frame = pl.DataFrame({"t": ["a", "b", "c"]})
    ran = bf.run(frame, "{t}", model="gpt-4o-mini", client=client, poll_seconds=0.05)
    batch_id = bf.batches(client)["batch_id"][0]
    assert bf.read_batch(batch_id, frame, client=client).equals(ran)


def test_several_batches(client):
    ids = [make(client, texts).id for texts in (["a"], ["b", "c"])]
    assert sorted(bf.read_batch(ids, client=client)["custom_id"]) == ["c-0", "c-1"]


def test_client_from_the_environment(emu, monkeypatch):
    made = make(emu.client())
    with pytest.raises(bf.OptionError, match="no API key"):
        bf.read_batch(made.id)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", emu.base_url)
    assert bf.read_batch(made.id).height == 1


def test_a_batch_that_has_not_ended(emulate):
    with emulate(progression="stepped") as service:
        client = service.client()
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
        file = client.files.create(file=("a.jsonl", jsonl(line)), purpose="batch")
        alive = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        with pytest.raises(bf.RunPendingError, match=rf"batch {alive.id} has not ended: it is validating.*as pending"):
            bf.read_batch(alive.id, client=client)
        found = bf.read_batch([alive.id, jsonl(good("b"), bad("c"))], IDS, custom_id="id", client=client)
        # A row that another source answers is not pending.
        assert codes(found) == ["pending", None, "batch_expired"]
        service.step()
        service.expire()
        while client.batches.retrieve(alive.id).status != "expired":
            pass
        assert codes(bf.read_batch(alive.id, client=client)) == ["batch_expired"]


def test_unknown_statuses_mean_still_running():
    with OddService(
        lambda *_: batch(status="Paused", request_counts={"total": 9, "completed": 4, "failed": 1})
    ) as service:
        with pytest.raises(bf.RunPendingError, match="it is paused, 5 of 9 requests done"):
            bf.read_batch("batch_0", client=service.client)
        assert codes(bf.read_batch("batch_0", IDS, custom_id="id", client=service.client)) == ["pending"] * 3


def test_batch_with_a_rejected_input_file(client):
    made = make(client, model="no-such-model")
    with pytest.raises(bf.InputFileRejectedError, match=r"failed: .*billed. model_not_found \(line 1\): ") as raised:
        bf.read_batch(made.id, IDS, custom_id="id", client=client)
    assert raised.value.errors[0][1] == "model_not_found"


def test_only_the_first_errors_are_shown():
    errors = {"data": [{"code": f"c{i}", "message": "no.", "line": i} for i in range(5)]}
    with OddService(lambda *_: batch(status="failed", errors=errors)) as service:
        with pytest.raises(bf.InputFileRejectedError, match=r"c2 \(line 2\): no. And 2 more.$") as raised:
            bf.read_batch("batch_0", client=service.client)
    assert len(raised.value.errors) == 5
    with OddService(lambda *_: batch(status="failed", errors=None)) as service:
        with pytest.raises(bf.InputFileRejectedError, match="It gave no reason"):
            bf.read_batch("batch_0", client=service.client)


def test_batch_that_failed_on_a_full_queue():
    full = batch(
        status="failed", model="gpt-4o", errors={"data": [{"code": "token_limit_exceeded", "message": "Full"}]}
    )
    with OddService(lambda *_: full) as service:
        with pytest.raises(
            bf.InputFileRejectedError, match=r"Full\. The same file can be .* ended\. Enqueued tokens for gpt"
        ):
            bf.read_batch("batch_0", client=service.client)
    with OddService(lambda *_: full | {"model": None}) as service:
        with pytest.raises(bf.InputFileRejectedError, match=r"once other batches have ended\.$"):
            bf.read_batch("batch_0", client=service.client)


def test_unknown_batch(client):
    with pytest.raises(bf.NotVisibleError, match="retrieve_batch: the service answered 404"):
        bf.read_batch("batch_none", client=client)


def test_deleted_result_file(client):
    made = make(client)
    client.files.delete(made.output_file_id)
    with pytest.raises(
        bf.ResultsError, match=rf"the output file {made.output_file_id} of batch .* deleted, has expired"
    ):
        bf.read_batch(made.id, client=client)


@pytest.mark.parametrize("kind", ["truncate", "status"])
def test_broken_downloads_are_retried(emu, client, kind):
    made = make(client, ["a", "b"])
    emu.fault("file_content", kind, times=2 if kind == "truncate" else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codes(bf.read_batch(made.id, client=client)) == [None, None]
    emu.fault("file_content", "truncate", times=None)
    with pytest.raises(bf.ConnectionFailedError, match="download: the connection broke"):
        bf.read_batch(made.id, client=client)


# -- what services send


class Results:
    """Answers as a service with one batch and its files."""

    def __init__(self, *batches, **files):
        self.batches, self.files = list(batches), files

    def __call__(self, path, _):
        if path.startswith("/files/"):
            name = path.split("/")[2]
            return self.files.get(name) if name in self.files else (404, {"error": {"message": "No such File"}})
        return self.batches.pop(0) if len(self.batches) > 1 else self.batches[0]


def read(results, frame=IDS):
    with OddService(results) as service:
        found = bf.read_batch("batch_0", frame, custom_id="id", client=service.client)
        return codes(found), service.asked


def test_azures_empty_error_file():
    results = Results(batch(output_file_id="o", error_file_id="e"), o=jsonl(good("a")), e=b"")
    assert read(results)[0] == [None, "missing", "missing"]


def test_an_error_file_that_was_never_written():
    results = Results(batch(output_file_id="o", error_file_id="e"), o=jsonl(good("a")))
    assert read(results)[0] == [None, "missing", "missing"]
    with pytest.raises(bf.ResultsError, match="the error file e of batch batch_0 does not exist"):
        read(Results(batch(error_file_id="e", request_counts={"total": 3, "completed": 0, "failed": 3})))


def test_all_failed():
    results = Results(batch(error_file_id="e", output_file_id=None), e=jsonl(bad("a"), bad("b"), bad("c")))
    found, asked = read(results)
    assert found == ["batch_expired"] * 3
    assert len(asked) == 2


def test_completed_batch_without_files_is_polled():
    counts = {"total": 3, "completed": 1, "failed": 2}
    early = batch(output_file_id="", error_file_id="e", request_counts=counts)
    late = batch(output_file_id="o", error_file_id="e", request_counts=counts)
    results = Results(early, early, late, o=jsonl(good("a")), e=jsonl(bad("b"), bad("c")))
    assert read(results)[0] == [None, "batch_expired", "batch_expired"]
    with pytest.raises(
        bf.ResultsError, match="completed with 1 requests completed, but the service names no output file"
    ):
        read(Results(early, e=b""))


def test_ended_batch_without_files():
    assert read(Results(batch(status="cancelled")))[0] == ["missing"] * 3
    assert read(Results(batch()))[0] == ["missing"] * 3


def test_results_in_blob_storage():
    blob = {"output_blob": "https://x.blob.core.windows.net/out/1/results.jsonl", "error_blob": ""}
    with pytest.raises(
        bf.ResultsError, match=r"are in Blob storage: download https://x.blob.core.windows.net/out/1/res"
    ):
        read(Results(batch(**blob)))


def test_a_failure_in_the_output_file():
    line = {"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"code": "bad", "message": "m"}}}}
    assert read(Results(batch(output_file_id="o"), o=jsonl(good("a"), line)))[0] == [None, "bad", "missing"]


def test_downloaded_files_are_always_result_files():
    with pytest.warns(bf.BatchframeWarning, match="1 of 1 lines of the output file o have no custom_id"):
        assert read(Results(batch(output_file_id="o"), o=b"<html>\n"))[0] == ["missing"] * 3
    assert read(Results(batch(output_file_id="o"), o=b'{"custom_id": "a", "re'))[0] == [
        "malformed_line",
        "missing",
        "missing",
    ]
