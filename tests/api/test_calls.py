"""Tool calls, logprobs and reasoning, through both services; and every request parameter as an expression."""

from __future__ import annotations

import json
import warnings

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._results import assemble

CHAT, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/completions"
CALLS = pl.List(pl.Struct({"id": pl.String, "name": pl.String, "arguments": pl.String}))
TOP = pl.List(pl.Struct({"token": pl.String, "logprob": pl.Float64}))
LOGPROBS = pl.List(
    pl.Struct({"token": pl.String, "logprob": pl.Float64, "bytes": pl.List(pl.UInt8), "top_logprobs": TOP})
)
FRAME = pl.DataFrame({"text": ["Paris", 'Zürich 🎉 "x"', None, "one two three"]})
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "parameters": PARAMETERS | {"additionalProperties": False}}
TOOLS = {CHAT: [{"type": "function", "function": FUNCTION}], RESPONSES: [{"type": "function", **FUNCTION}]}
ASKS = {
    CHAT: {"logprobs": True, "top_logprobs": 2},
    RESPONSES: {"top_logprobs": 2, "extra_body": {"include": ["message.output_text.logprobs"]}},
    COMPLETIONS: {"logprobs": 2, "model": "gpt-3.5-turbo-instruct"},
}


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def ask(emu, endpoint=CHAT, frame=FRAME, **options):
    arguments = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "client": emu.client(), "endpoint": endpoint}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.BatchframeWarning)
        return bf.run(frame, "{text}", **arguments | options)


def codes(out, prefix=""):
    return out[prefix + "error"].struct.field("code").to_list()


# -- tool calls


@pytest.mark.parametrize("endpoint", TOOLS)
def test_tool_calls_are_a_column(service, endpoint):
    tools = {"tools": TOOLS[endpoint], "include": "tool_calls", "prefix": "x_"}
    out = ask(service, endpoint, tool_choice="required", parallel_tool_calls=False, **tools)
    assert out["x_tool_calls"].dtype == CALLS
    assert codes(out, "x_") == [None, None, "null_input", None]
    assert out["x_response"].null_count() == 4
    assert out["x_tool_calls"].list.len().to_list() == [1, 1, None, 1]
    calls = out.drop_nulls("text").explode("x_tool_calls").unnest("x_tool_calls")
    assert set(calls["name"]) == {"weather"}
    assert calls["id"].str.starts_with("call_").all()
    assert all(json.loads(text).keys() == {"city"} for text in calls["arguments"])
    # Tools that are not called: the list is empty where a row was answered, and null where it was not.
    out = ask(service, endpoint, tool_choice="none", **tools)
    assert out["x_tool_calls"].to_list() == [[], [], None, []]
    assert out["x_response"].null_count() == 1


def test_tool_calls_satisfy_a_response_format(emu):
    shape = pl.Struct({"answer": pl.String})
    out = ask(emu, tools=TOOLS[CHAT], tool_choice="required", response_format=shape, include=["tool_calls"])
    assert codes(out) == [None, None, "null_input", None]
    assert out["response"].dtype == shape
    assert out["tool_calls"].list.len().to_list() == [1, 1, None, 1]


def test_tool_calls_of_several_choices(emu):
    chosen = {"n": 2, "logprobs": True, "tools": TOOLS[CHAT], "include": ["tool_calls", "logprobs"]}
    out = ask(emu, tool_choice="required", **chosen)
    assert out.schema["tool_calls"] == pl.List(CALLS)
    assert out["tool_calls"].list.eval(pl.element().list.len()).to_list() == [[1, 1], [1, 1], None, [1, 1]]
    assert out["logprobs"].to_list() == [[None, None], [None, None], None, [None, None]]
    out = ask(emu, tool_choice="none", **chosen)
    assert out.schema["logprobs"] == pl.List(LOGPROBS)
    assert out["tool_calls"].to_list() == [[[], []], [[], []], None, [[], []]]
    assert out.explode("response", "finish_reason", "logprobs", "tool_calls")["logprobs"].list.len().min() > 0


@pytest.mark.parametrize("endpoint", [COMPLETIONS, "/v1/embeddings", "/v1/moderations"])
def test_tool_calls_are_refused_at_other_endpoints(endpoint):
    with pytest.raises(
        bf.OptionError, match=f"^answers of {endpoint} have no tool_calls: leave out include='tool_calls'"
    ):
        bf.result_schema(FRAME, "{text}", model="m", endpoint=endpoint, include=["tool_calls"])


# -- logprobs


@pytest.mark.parametrize("endpoint", ASKS)
def test_logprobs_are_a_column(service, endpoint):
    out = ask(service, endpoint, include=["logprobs"], **ASKS[endpoint])
    assert out["logprobs"].dtype == LOGPROBS
    assert out["logprobs"].is_null().to_list() == [False, False, True, False]
    for text, tokens in out.drop_nulls("text").select("response", "logprobs").rows():
        assert "".join(token["token"] for token in tokens) == text
        assert all(token["logprob"] < 0 and len(token["top_logprobs"]) == 2 for token in tokens)
        if endpoint != COMPLETIONS:
            assert all(bytes(token["bytes"]).decode() == token["token"] for token in tokens)


@pytest.mark.parametrize(
    ("endpoint", "given", "line"),
    [
        (CHAT, {}, "needs logprobs=True"),
        (CHAT, {"logprobs": False}, "needs logprobs=True"),
        (COMPLETIONS, {}, "needs logprobs=1"),
        (RESPONSES, {}, r'needs extra_body=\{"include": \["message.output_text.logprobs"\]\}'),
        (RESPONSES, {"extra_body": {"include": ["reasoning.encrypted_content"]}}, "needs extra_body="),
        ("/v1/embeddings", {}, "have no logprobs: leave out"),
        ("/v1/moderations", {}, "have no logprobs: leave out"),
    ],
)
def test_logprobs_column_needs_its_parameter(endpoint, given, line):
    with pytest.raises(bf.OptionError, match=line):
        bf.result_schema(FRAME, "{text}", model="m", endpoint=endpoint, include="logprobs", **given)


def test_logprobs_of_some_rows(emu):
    asks = pl.col("text").str.len_chars() > 5
    out = ask(emu, logprobs=asks, include="logprobs")
    assert out["logprobs"].is_null().to_list() == [True, False, True, False]
    assert ask(emu, COMPLETIONS, model="gpt-3.5-turbo-instruct", logprobs=0, include="logprobs")["logprobs"].list.len().min() > 0  # fmt: skip  # noqa: E501


# -- the same answers, looked at once more


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
@pytest.mark.parametrize("piece_bytes", [32_000_000, 1])
def test_extra_columns_added_later_cost_no_request(emu, tmp_path, monkeypatch, piece_bytes):
    monkeypatch.setattr(assemble, "_PIECE_BYTES", piece_bytes)
    plain = ask(emu, logprobs=True)
    before = emu.ledger()
    more = ask(emu, logprobs=True, include=["logprobs", "raw", "tool_calls"])
    assert more.select(plain.columns).equals(plain)
    assert more["logprobs"].list.len().to_list() == [len(text.split()) if text else None for text in plain["response"]]
    assert [None if line is None else json.loads(line)["custom_id"] for line in more["raw"]] == [
        "row-0", "row-1", None, "row-3",
    ]  # fmt: skip
    turned = ask(emu, logprobs=True, frame=FRAME.reverse(), include=["logprobs"])
    assert turned["logprobs"].to_list() == more["logprobs"].reverse().to_list()
    assert ask(emu, logprobs=True).equals(plain)
    assert ask(emu, logprobs=True, dedupe=False, include=["tool_calls"])["tool_calls"].to_list() == [[], [], None, []]
    FRAME.write_parquet(tmp_path / "in.parquet")
    bf.run_parquet(
        tmp_path / "in.parquet", tmp_path / "out.parquet", "{text}", model="gpt-4o-mini", client=emu.client(),
        logprobs=True, include=["logprobs"],
    )  # fmt: skip
    assert pl.read_parquet(tmp_path / "out.parquet").equals(more.drop("raw", "tool_calls"))
    assert emu.ledger() == before


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
def test_extra_columns_have_the_order_of_the_schema(emu, tmp_path):
    """Neither earlier calls nor the input change the order; a column name may look like a pattern."""
    frame = FRAME.with_columns(pl.lit(1).alias("*"), pl.lit(2).alias("^.*$"))
    call = {"model": "gpt-4o-mini", "logprobs": True, "run_dir": tmp_path / "r", "include": "content_filter"}
    chosen = {"client": emu.client(), "poll_seconds": 0.01}
    bf.run(frame, "{text}", **chosen, **call)
    call["include"] = ["raw", "reused", "tool_calls", "content_filter", "model", "logprobs"]
    out = bf.run(frame, "{text}", **chosen, **call)
    assert out.schema == bf.result_schema(frame, "{text}", **call)
    assert bf.run(frame.lazy(), "{text}", **chosen, **call).collect().equals(out)
    assert bf.submit(frame, "{text}", **chosen, **call).result().equals(out)
    frame.write_parquet(tmp_path / "in.parquet")
    bf.run_parquet(tmp_path / "in.parquet", tmp_path / "out.parquet", "{text}", **chosen, **call)
    assert pl.read_parquet(tmp_path / "out.parquet").equals(out)


@pytest.mark.filterwarnings("ignore::batchframe.BatchframeWarning")
def test_extra_columns_follow_reuse_retry_and_reparse(emu):
    chosen = {"tools": TOOLS[CHAT], "tool_choice": "required", "include": ["tool_calls", "reused"]}
    emu.row_fault("status", status=400, code="bad", custom_ids=["row-3"])
    first = ask(emu, frame=FRAME.drop_nulls(), **chosen)
    grown = pl.concat([pl.DataFrame({"text": ["new"]}), FRAME.drop_nulls()])
    emu.row_fault("status", status=400, code="bad", custom_ids=["row-0"])
    arguments = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "client": emu.client(), "reuse": "all"}
    run = bf.submit(grown, "{text}", **arguments, **chosen)
    assert run.wait().done
    out = run.result()
    assert out["reused"].to_list() == [False, True, True, True]
    assert out["tool_calls"].to_list()[1:] == first["tool_calls"].to_list()
    assert out["tool_calls"][0] is None
    run.reparse(response_format=pl.Struct({"a": pl.Int64}))
    assert run.result()["tool_calls"].to_list() == out["tool_calls"].to_list()


@pytest.mark.parametrize("dedupe", [False, True])
def test_no_rows_and_equal_rows(emu, dedupe):
    chosen = {"logprobs": True, "include": ["logprobs", "tool_calls"], "dedupe": dedupe}
    out = ask(emu, frame=FRAME.head(0), **chosen)
    assert (out.height, out["logprobs"].dtype, out["tool_calls"].dtype) == (0, LOGPROBS, CALLS)
    out = ask(emu, frame=FRAME[[0, 0, 1]], **chosen)
    assert out["logprobs"].null_count() == 0
    assert out["logprobs"][0].to_list() == out["logprobs"][1].to_list() or not dedupe


def test_unfinished_and_failed_rows_have_the_same_dtypes(emu):
    emu.row_fault("status", status=400, code="bad")
    out = ask(emu, logprobs=True, include=["logprobs", "tool_calls"])
    assert (out["logprobs"].dtype, out["tool_calls"].dtype) == (LOGPROBS, CALLS)
    assert out["logprobs"].null_count() == out["tool_calls"].null_count() == 4
    arguments = {"model": "gpt-4o-mini", "client": emu.client(), "logprobs": True, "include": ["logprobs"]}
    run = bf.submit(FRAME, "{text}?", **arguments)
    assert run.result()["logprobs"].dtype == LOGPROBS


# -- reasoning


def has_details(service, endpoint):
    """Whether usage has token details, which Azure's chat completions lack."""
    return endpoint == RESPONSES or not isinstance(service.client(), openai.AzureOpenAI)


@pytest.mark.parametrize(("endpoint", "model"), [(CHAT, "o3"), (RESPONSES, "gpt-5-mini")])
def test_reasoning_parameters(service, endpoint, model):
    frame = FRAME.with_columns(effort=pl.Series(["low", None, "high", "high"]))
    given = {"reasoning_effort": "low"}, {"reasoning_effort": pl.col("effort")}
    if endpoint == RESPONSES:
        given = {"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning": pl.struct("effort")}
    for parameters in given:
        out = ask(service, endpoint, frame=frame, model=model, **parameters)
        assert codes(out) == [None, None, "null_input", None]
        reasoning = out["usage"].struct.field("reasoning_tokens").drop_nulls()
        assert reasoning.gt(0).sum() == 3 or not has_details(service, endpoint)
        assert out["response"].str.contains("Thought about").sum() == 0
    lines = bf.requests(frame, "{text}", model=model, endpoint=endpoint, **given[1])["request"]
    sent = [json.loads(line)["body"] for line in lines.drop_nulls()]
    name = "reasoning" if endpoint == RESPONSES else "reasoning_effort"
    assert [body.get(name) for body in sent] == (
        [{"effort": "low"}, {"effort": None}, {"effort": "high"}] if endpoint == RESPONSES else ["low", None, "high"]
    )


@pytest.mark.parametrize(
    ("endpoint", "limit", "code"),
    [(CHAT, "max_completion_tokens", "length"), (RESPONSES, "max_output_tokens", "max_output_tokens")],
)
@pytest.mark.parametrize("response_format", [None, pl.Struct({"a": pl.String})])
def test_answer_that_spent_all_tokens_on_reasoning(service, endpoint, limit, code, response_format):
    out = ask(service, endpoint, model="gpt-5-mini", response_format=response_format, **{limit: 20})
    assert codes(out) == [code, code, "null_input", code]
    assert out["response"].null_count() == 4
    assert out["finish_reason"].to_list() == [code, code, None, code]
    tokens = "reasoning_tokens" if has_details(service, endpoint) else "output_tokens"
    assert out["usage"].struct.field(tokens).to_list() == [20, 20, None, 20]
    assert f"raise {limit}, or lower reasoning" in out["error"].struct.field("message")[0]
    # It is paid for, and would end the same way: not again by itself.
    assert service.ledger()["executions"] == 3


# -- every parameter as an expression

BODIES = {
    CHAT: {
        "frequency_penalty": [0.5, None], "logit_bias": [{"50256": -100}, None], "logprobs": [True, None],
        "max_completion_tokens": [50, None], "metadata": [{"k": "v"}, None], "parallel_tool_calls": [False, None],
        "presence_penalty": [0.5, None], "prompt_cache_key": ["k", None], "safety_identifier": ["u", None],
        "seed": [1, None], "service_tier": ["default", None], "stop": [["x", "y"], None], "store": [False, None],
        "temperature": [0.0, None], "tools": [TOOLS[CHAT], None], "top_logprobs": [2, None], "top_p": [0.5, None],
        "user": ["me", None],
    },
    RESPONSES: {
        "include": [["message.output_text.logprobs"], None], "instructions": ["Be brief.", None],
        "max_output_tokens": [500, None], "max_tool_calls": [2, None], "metadata": [{"k": "v"}, None],
        "parallel_tool_calls": [False, None], "prompt_cache_key": ["k", None], "safety_identifier": ["u", None],
        "service_tier": ["default", None], "store": [False, None], "temperature": [0.0, None],
        "text": [{"verbosity": "low"}, None], "tools": [TOOLS[RESPONSES], None], "top_logprobs": [2, None],
        "top_p": [0.5, None], "truncation": ["auto", None], "user": ["me", None],
    },
    COMPLETIONS: {
        "best_of": [2, None], "echo": [True, None], "frequency_penalty": [0.5, None],
        "logit_bias": [{"50256": -1}, None], "logprobs": [1, None], "max_tokens": [50, None],
        "presence_penalty": [0.5, None], "seed": [1, None], "stop": [["x"], None], "suffix": ["end", None],
        "temperature": [0.0, None], "top_p": [0.5, None], "user": ["me", None],
    },
    "/v1/embeddings": {"encoding_format": ["float", None], "user": ["me", None]},
}  # fmt: skip
MODELS = {COMPLETIONS: "gpt-3.5-turbo-instruct", "/v1/embeddings": "text-embedding-3-small"}
OURS = {"metadata", "include"}  # names that options of ours have


@pytest.mark.parametrize("endpoint", BODIES)
def test_every_parameter_as_an_expression(emu, endpoint):
    given = BODIES[endpoint]
    columns = {f"of {name}": values for name, values in given.items()}
    frame = pl.DataFrame({"text": ["a b c", "d e f"]} | columns)
    body = {name: pl.col(f"of {name}") for name in given if name not in OURS}
    body["extra_body"] = {name: pl.col(f"of {name}") for name in given if name in OURS}
    body |= {"model": MODELS.get(endpoint, "gpt-4o-mini"), "endpoint": endpoint}
    lines = bf.requests(frame, "{text}", **body)["request"]
    first, second = (json.loads(line)["body"] for line in lines)
    assert {name: first[name] for name in given} == {name: values[0] for name, values in given.items()}
    assert set(second) == {"model", *first} - set(given)
    assert codes(ask(emu, frame=frame, **body)) == [None, None]


def test_tools_of_different_shapes_in_one_column(emu):
    def tool(name, **properties):
        parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    tools = [[tool("weather", city="string")], [tool("add", a="number", b="number"), tool("now")]]
    frame = pl.DataFrame({"text": ["one", "two"]}).with_columns(tools=pl.Series(tools, strict=False))
    out = ask(emu, frame=frame, tools=pl.col("tools"), tool_choice="required", include=["tool_calls"])
    assert codes(out) == [None, None]
    (line, _) = bf.requests(frame, "{text}", model="gpt-4o-mini", tools=pl.col("tools"))["request"]
    assert json.loads(line)["body"]["tools"] == tools[0]


@pytest.mark.parametrize(("name", "endpoint"), [("n", CHAT), ("dimensions", "/v1/embeddings")])
def test_parameters_that_decide_the_dtype_are_equal_for_all_rows(name, endpoint):
    with pytest.raises(bf.OptionError, match=f"{name} must be one positive integer for all rows"):
        bf.requests(FRAME, "{text}", model="m", endpoint=endpoint, **{name: pl.lit(2)})
