"""Answers that are not strict JSON, or that have another shape, succeed and are billed once."""

# ruff: noqa: E501  (a table reads best a case a line)

from __future__ import annotations

import json
import math

import polars as pl
import pytest

import batchframe as bf
from batchframe.cli import main

HALF = r"\ud83d"
TEXTS = pl.DataFrame({"text": ["one", "two", "three"]})
MOOD = pl.Struct({"mood": pl.String, "score": pl.Float64})
DEEP = "[" * 2_000 + "]" * 2_000
CHAT = {"model": "gpt-4o-mini"}
RESPONSES = {"model": "gpt-4o-mini", "endpoint": "/v1/responses"}
COMPLETIONS = {"model": "gpt-3.5-turbo-instruct", "endpoint": "/v1/completions"}
EMBEDDINGS = {"model": "text-embedding-3-small", "endpoint": "/v1/embeddings", "dimensions": 2}
MODERATIONS = {"model": "omni-moderation-latest", "endpoint": "/v1/moderations"}
# Call options, the replacement in every result line, and the prefix of each response.
UNREAD = ('"id":"', '"odd":NaN,"odder":[-Infinity,{"x":"' + HALF + '"}],"id":"')
TOO_DEEP = ('"id":"', f'"odd":{DEEP},"id":"')
ODD = {
    "chat, lone surrogate": (CHAT, ('"content":"', f'"content":"{HALF} '), "\ufffd In short: "),
    "chat, NaN and lone surrogate in unused fields": (CHAT, UNREAD, "In short: "),
    "chat, nested too deeply": (CHAT, TOO_DEEP, "In short: "),
    "responses, lone surrogate": (RESPONSES, ('"text":"In', f'"text":"{HALF} In'), "\ufffd In short: "),
    "responses, NaN and lone surrogate in unused fields": (RESPONSES, UNREAD, "In short: "),
    "responses, nested too deeply": (RESPONSES, TOO_DEEP, "In short: "),
    "completions, lone surrogate": (COMPLETIONS, ('"text":"', f'"text":"{HALF} '), "\ufffd "),
    "completions, nested too deeply": (COMPLETIONS, TOO_DEEP, ""),
    "embeddings, nested too deeply": (EMBEDDINGS, ('"object":"list"', f'"odd":{DEEP},"object":"list"'), None),
    "moderations, NaN": (MODERATIONS, ('"category_scores":{', '"category_scores":{"odd":NaN,'), None),
}


@pytest.fixture
def ask(emu, client):
    def call(**options):
        return bf.run(TEXTS, "{text}", client=client, poll_seconds=0.02, **options)

    return call


def is_billed_once(emu):
    return emu.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(3)}


@pytest.mark.parametrize("case", ODD)
def test_non_strict_json_answer_succeeds(case, emu, ask):
    options, (old, new), prefix = ODD[case]
    emu.row_fault("rewritten", old=old, new=new, attempts=None)
    out = ask(**options)
    assert out["error"].null_count() == 3, out["error"].to_list()
    if prefix is not None:
        assert out["response"].str.starts_with(prefix).all(), out["response"].to_list()
    assert is_billed_once(emu)


def test_read_batch_reads_non_strict_json(emu, ask, client, tmp_path, capsys):
    emu.row_fault("rewritten", old='"content":"', new=f'"x":NaN,"content":"{HALF} ', attempts=None)
    ask(**CHAT)
    batch = client.batches.list().data[0]
    path = tmp_path / "output.jsonl"
    path.write_bytes(client.files.content(batch.output_file_id).content)
    for source in (batch.id, path, path.read_bytes()):
        out = bf.read_batch(source, TEXTS, client=client, include="raw")
        assert out["response"].str.starts_with("\ufffd In short: ").all()
        assert out["raw"].str.contains(HALF, literal=True).all()
    assert main(["read", str(path), "--include", "raw"]) == 0
    assert "3: 3 succeeded" in capsys.readouterr().out


def test_run_parquet_reads_non_strict_json(emu, client, tmp_path):
    emu.row_fault("rewritten", old='"content":"', new=f'"content":"{HALF} ', attempts=None)
    TEXTS.write_parquet(tmp_path / "in.parquet")
    bf.run_parquet(
        tmp_path / "in.parquet", tmp_path / "out.parquet", "{text}", client=client, poll_seconds=0.02, **CHAT
    )
    assert pl.read_parquet(tmp_path / "out.parquet")["response"].str.starts_with("\ufffd").all()


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize(
    ("number", "score"), [("NaN", math.nan), ("-Infinity", -math.inf), ("1e999", math.inf), ("2", 2.0)]
)
def test_typed_answer_in_non_strict_json(number, score, endpoint, emu, ask):
    member = "text" if "responses" in endpoint else "content"
    text = rf"{{\"mood\": \"\{HALF}\", \"score\": {number}}}"
    emu.row_fault("rewritten", old=f'"{member}":"', new=f'"{member}":"{text}","old":"', attempts=None)
    out = ask(model="gpt-4o-mini", endpoint=endpoint, response_format=MOOD)
    assert out["error"].null_count() == 3, out["error"].to_list()
    assert out["response"].struct.field("mood").to_list() == ["\ufffd"] * 3
    assert repr(out["response"].struct.field("score").to_list()) == repr([score] * 3)
    assert is_billed_once(emu)


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_non_finite_numbers_in_typed_answers(dtype, emu, ask):
    schema = {
        "type": "object",
        "properties": {"count": {"type": ["integer", "null"]}, "note": {"type": ["string", "null"]}},
    }
    emu.row_fault(
        "rewritten", old='"content":"', new=r'"content":"{\"count\": NaN, \"note\": Infinity}","old":"', attempts=None
    )
    out = ask(**CHAT, response_format=schema)
    assert out["response"].to_list() == [{"count": None, "note": None}] * 3
    emu.clear_faults()
    emu.row_fault("rewritten", old='"content":"', new=r'"content":"{\"x\": [NaN, -Infinity]}","old":"', attempts=None)
    out = ask(**CHAT, response_format=pl.Struct({"x": pl.List(dtype)}), name="floats")
    assert repr(out["response"].to_list()[0]["x"]) == "[nan, -inf]"


def test_non_finite_embeddings(emu, ask):
    emu.row_fault("rewritten", old='"embedding":"', new='"embedding":[NaN,-Infinity],"old":"', attempts=None)
    out = ask(**EMBEDDINGS)
    assert out["response"].dtype == pl.Array(pl.Float32, 2)
    assert repr(out["response"].to_list()) == repr([[math.nan, -math.inf]] * 3)
    assert is_billed_once(emu)


def test_logprobs_in_non_strict_json(emu, ask):
    emu.row_fault("rewritten", custom_ids=["row-0"], old='"token":"', new=f'"token":"{HALF}')
    emu.row_fault("rewritten", custom_ids=["row-1"], old='"logprob":', new='"logprob":-Infinity,"old":')
    out = ask(**CHAT, logprobs=True, top_logprobs=1, include=["logprobs", "raw"])
    half, infinite, plain = out["logprobs"].to_list()
    assert half[0]["token"].startswith("\ufffd")
    assert half[0]["top_logprobs"][0]["token"].startswith("\ufffd")
    assert {token["logprob"] for token in infinite} == {-math.inf}
    assert infinite[0]["top_logprobs"][0]["logprob"] == -math.inf
    assert all(math.isfinite(token["logprob"]) for token in [*half, *plain])
    assert [json.loads(raw)["custom_id"] for raw in out["raw"]] == ["row-0", "row-1", "row-2"]
    assert is_billed_once(emu)


def message(*texts):
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return json.dumps({"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": parts})


GOOD, OTHER = '{"mood": "fine", "score": 1}', '{"mood": "bad", "score": 2}'
SEVERAL = {
    "a fragment, then the whole": ([message('{"mood": "fi'), message(GOOD)], {"mood": "fine", "score": 1.0}),
    "the same twice": ([message(GOOD), message(GOOD)], {"mood": "fine", "score": 1.0}),
    "the same, spelled otherwise": ([message(GOOD), message(GOOD.replace(" ", ""))], {"mood": "fine", "score": 1.0}),
    "parts of one message": ([message('{"mood": "fi', 'ne", "score": 1}')], {"mood": "fine", "score": 1.0}),
    "one in two messages": ([message('{"mood": "fi'), message('ne", "score": 1}')], {"mood": "fine", "score": 1.0}),
    "prose, then the whole": ([message("Here it is:"), message(GOOD)], {"mood": "fine", "score": 1.0}),
    "two that differ": ([message(GOOD), message(OTHER)], None),
    "two fragments": ([message('{"mood": "fi'), message('{"mood": "f')], None),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_typed_answer_in_several_messages(case, emu, ask):
    messages, expected = SEVERAL[case]
    emu.row_fault("rewritten", custom_ids=["row-1"], old='"output":[', new=f'"output":[{",".join(messages)}],"old":[')
    options = {"include": "raw", "response_format": MOOD, **RESPONSES}
    if expected is None:
        with pytest.warns(bf.BatchframeWarning, match="1 invalid_response"):
            out = ask(**options)
    else:
        out = ask(**options)
        assert out["error"].null_count() == 3, out["error"].to_list()
    assert out["response"][1] == expected
    assert out["response"].null_count() == (expected is None)
    assert is_billed_once(emu)


def test_text_of_several_messages_is_joined(emu, ask):
    emu.row_fault(
        "rewritten", old='"output":[', new=f'"output":[{message("one")},{message("two")}],"old":[', attempts=None
    )
    assert ask(**RESPONSES)["response"].to_list() == ["onetwo"] * 3


CONTENT = {
    "thinking and text": ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}], "hi"),
    "several texts": ([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}], "hi"),
    "plain texts": (["h", "i"], "hi"),
    "an empty text": ([{"type": "text", "text": ""}], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENT)
def test_content_as_list_of_parts(case, emu, ask):
    parts, text = CONTENT[case]
    emu.row_fault("rewritten", old='"content":', new=f'"content":{json.dumps(parts)},"old":', attempts=None)
    out = ask(**CHAT)
    assert out["response"].to_list() == [text] * 3
    assert is_billed_once(emu)


def test_typed_content_as_list_of_parts(emu, ask):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": GOOD}]
    emu.row_fault("rewritten", old='"content":', new=f'"content":{json.dumps(parts)},"old":', attempts=None)
    assert ask(**CHAT, response_format=MOOD)["response"].to_list() == [{"mood": "fine", "score": 1.0}] * 3


def test_content_without_text_is_not_retried(emu, ask):
    emu.row_fault("rewritten", old='"content":', new='"content":[{"type":"image_url"}],"old":', attempts=None)
    with pytest.warns(bf.BatchframeWarning, match="3 invalid_response"):
        out = ask(**CHAT)
    assert out["error"][0]["message"] == "the content has parts of type image_url, but none with a text"
    assert is_billed_once(emu)


def test_usage_in_other_spellings_is_totalled(emu, ask, client):
    emu.row_fault(
        "rewritten", old='"prompt_tokens":', new='"cache_creation_input_tokens":4.0,"prompt_tokens":', attempts=None
    )
    out = ask(**CHAT)
    assert out["usage"].struct.field("cache_write_tokens").to_list() == [4, 4, 4]
    run = bf.submit(TEXTS, "{text}", client=client, **CHAT)
    assert run.status().usage["cache_write_tokens"] == 12


# -- the same answers in another run


def test_reuse_reads_non_strict_json_under_other_ids(emu, ask, client):
    emu.row_fault("rewritten", old='"content":"', new=f'"x":NaN,"content":"{HALF} ', attempts=None)
    run = bf.submit(TEXTS, "{text}", client=client, **CHAT, poll_seconds=0.02)
    run.wait()
    other = bf.run(TEXTS.reverse(), "{text}", client=client, reuse=run.path, name="again", **CHAT)
    assert other["response"].str.starts_with("\ufffd In short: ").all()
    assert other["response"].to_list() == run.result()["response"].to_list()[::-1]
    assert is_billed_once(emu)


# -- result files of other endpoints


def line(custom_id, response):
    return json.dumps({"custom_id": custom_id, "response": response}).encode() + b"\n"


def good(body):
    return {"status_code": 200, "request_id": "r", "body": body}


FOREIGN = {
    "/v1/images/generations": {"created": 1, "data": [{"b64_json": "AA=="}]},
    "/v1/audio/transcriptions": {"text": "hello"},
    "/v1/rerank": {"id": "x", "results": [{"index": 0, "relevance_score": 0.5}]},
    "/v1/score": {"object": "list", "data": [{"index": 0, "object": "score", "score": 0.5}]},
    "/v1/messages": {"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"},
}


@pytest.mark.parametrize("endpoint", FOREIGN)
def test_read_batch_names_an_unsupported_endpoint(endpoint):
    source = line("a", good(FOREIGN[endpoint]))
    with pytest.warns(bf.BatchframeWarning, match=f"1 of 1 .* look like answers of {endpoint}, .*include"):
        out = bf.read_batch(source, include=["raw", "model"])
    assert out["error"][0]["code"] == "invalid_response"
    assert endpoint in out["error"][0]["message"]
    assert out["response"].dtype == pl.String
    assert json.loads(out["raw"][0])["response"]["body"] == FOREIGN[endpoint]


def test_read_batch_with_several_embeddings_per_request():
    body = {
        "object": "list",
        "model": "m",
        "data": [{"embedding": [1.0]}, {"embedding": [2.0]}],
        "usage": {"prompt_tokens": 2},
    }
    out = bf.read_batch(line("a", good(body)), include="raw")
    assert out["error"][0] == {"code": "invalid_response", "message": "the body has 2 embeddings instead of one"}
    assert json.loads(out["raw"][0])["response"]["body"] == body
    assert out["usage"][0]["input_tokens"] == 2


def test_read_batch_accepts_a_bare_body_as_response():
    body = {"object": "chat.completion", "model": "m", "choices": [{"message": {"content": "hi"}}]}
    out = bf.read_batch(line("a", body) + line("b", {"error": {"code": "bad", "message": "no"}}), include="model")
    assert out.select("response", "model").rows() == [("hi", "m"), (None, None)]
    assert out["error"].to_list() == [None, {"code": "bad", "message": "no"}]


def test_read_batch_include():
    source = line(
        "a",
        good(
            {
                "model": "m",
                "choices": [
                    {
                        "message": {
                            "content": None,
                            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
                        }
                    }
                ],
            }
        ),
    )
    frame = pl.DataFrame({"custom_id": ["a", "b"]})
    out = bf.read_batch(source, frame, include=["request_id", "tool_calls", "content_filter", "logprobs"])
    assert out["tool_calls"].to_list() == [[{"id": "1", "name": "f", "arguments": "{}"}], None]
    assert out["request_id"].to_list() == ["r", None]
    assert out.columns[-4:] == ["request_id", "logprobs", "tool_calls", "content_filter"]
    with pytest.raises(bf.OptionError, match=r"include has no column 'rawr'\. Did you mean 'raw'"):
        bf.read_batch(source, include="rawr")
    with pytest.raises(bf.InputError, match="the frame already has a column 'raw'"):
        bf.read_batch(source, frame.with_columns(raw=1), include="raw")
