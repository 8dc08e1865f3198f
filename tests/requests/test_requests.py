"""Prompts of every kind become request lines: messages, conversations, expressions, nulls, ids."""

from __future__ import annotations

import json
from decimal import Decimal

import polars as pl
import polars.selectors as cs
import pytest

import batchframe as bf
from batchframe._api import options as _options
from batchframe._core.digests import digest_sums
from batchframe._requests import frame_source
from batchframe._requests.renderer import compile_prompt

FRAME = pl.DataFrame({"x": ["a", "b", "c"], "n": [1, 2, 3], "maybe": ["p", None, "q"]})
USER = {"role": "user", "content": "{x}"}


def lines(frame, prompt, **options):
    return bf.requests(frame, prompt, model="m", **options)["request"].to_list()


def messages(frame, prompt, **options):
    return [line and json.loads(line)["body"]["messages"] for line in lines(frame, prompt, **options)]


def contents(frame, prompt, **options):
    return [conversation and conversation[-1]["content"] for conversation in messages(frame, prompt, **options)]


def codes(frame, prompt, **options):
    renderer = compile_prompt(frame, _options.parse({"model": "m", **options}).request_spec(prompt), 1_000_000)
    rows = pl.concat(renderer.slices())
    return list(zip(rows["batchframe:code"], rows["batchframe:message"], strict=True))


def refusal(error, frame, prompt, **options):
    with pytest.raises(error) as caught:
        bf.requests(frame, prompt, model="m", **options)
    return str(caught.value)


@pytest.fixture(params=["eager", "lazy"])
def as_frame(request):
    return (lambda frame: frame.lazy()) if request.param == "lazy" else (lambda frame: frame)


@pytest.fixture(params=[65_536, 2], ids=["one slice", "slices"])
def _slices(request, monkeypatch):
    monkeypatch.setattr(frame_source, "SLICE_ROWS", request.param)


# -- the line


def test_request_line_bytes():
    (line,) = lines(FRAME.head(1), "Say {x}", system="Be brief", temperature=0, max_tokens=pl.col("n"))
    assert line == (
        '{"custom_id":"row-0","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":'
        '[{"role":"system","content":"Be brief"},{"role":"user","content":"Say a"}],"max_tokens":1,"temperature":0}}'
    )


def test_digest_depends_on_the_body_only():
    def rows(frame, **options):
        (slice_,) = compile_prompt(
            frame, _options.parse({"model": "m", **options}).request_spec("{x}"), 1_000_000
        ).slices()
        return slice_["batchframe:digest"]

    digests = rows(FRAME)
    assert digests.n_unique() == 3
    assert {len(value) for value in digests} == {16}
    assert rows(FRAME.reverse()).to_list() == digests.reverse().to_list()
    assert rows(FRAME, custom_id="x").equals(digests)
    assert rows(FRAME, seed=1).n_unique() == 3
    assert not set(rows(FRAME, seed=1)) & set(digests)


def test_digest_sums():
    digests = pl.Series([b"\xff" * 16, b"\x00" * 15 + b"\x02", None, b"\x01" * 16], dtype=pl.Binary)
    assert digest_sums(digests) == (2 + int.from_bytes(b"\x01" * 16, "big") - 1) % 2**128
    assert digest_sums(digests.clear()) == 0
    many = pl.Series([b"\xff" * 16] * 100_000, dtype=pl.Binary)
    assert (
        digest_sums(pl.concat([many, digests, many]))
        == (2 + int.from_bytes(b"\x01" * 16, "big") - 1 - 200_000) % 2**128
    )


# -- messages


@pytest.mark.usefixtures("_slices")
def test_messages_of_templates_and_expressions(as_frame):
    prompt = [
        {"role": "developer", "content": "Be {n}"},
        {"role": "user", "content": pl.col("x").str.to_uppercase()},
        {"role": "assistant", "content": "fixed {{}}"},
        {"role": "user", "content": "{x}?"},
    ]
    roles = ["system", "developer", "user", "assistant", "user"]
    got = messages(as_frame(FRAME), prompt, system=pl.format("sys {}", "n"))
    assert [[message["role"] for message in conversation] for conversation in got] == [roles] * 3
    assert [[message["content"] for message in conversation] for conversation in got] == [
        [f"sys {n}", f"Be {n}", x.upper(), "fixed {}", f"{x}?"] for x, n in zip("abc", [1, 2, 3], strict=True)
    ]
    assert messages(as_frame(FRAME), tuple(prompt)) == messages(as_frame(FRAME), prompt)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the list of messages is empty"),
        ([{"role": "user"}], """message 0 must be {"role": …, "content": …}, got {'role': 'user'}"""),
        ([USER, "x"], "message 1 must be"),
        (
            [{**USER, "nme": "x"}],
            "message 0 has the unknown key 'nme': a message of /v1/chat/completions may have role, content, name,",
        ),
        ([{**USER, "nme": "x"}], "Did you mean 'name'?"),
        ([{**USER, "role": "usr"}], "message 0 has role 'usr': expected one of system, developer, user"),
        ([{**USER, "role": pl.col("x")}], "message 0 has role"),
        ([{**USER, "content": 3}], "the content of message 0 must be a template, an expression or a list of"),
        (
            [{**USER, "content": None}],
            "message 0 must be a template, an expression or a list of parts, got NoneType",
        ),
        (3, "the prompt must be a template, an expression, or a list of messages"),
        (None, "the prompt must be a template"),
        ({"role": "user", "content": "{x}"}, "the prompt must be a template"),
        (b"{x}", "the prompt must be a template"),
        (pl.Series(["a"]), "the prompt is a Series: add it to the frame and pass its column"),
    ],
)
def test_bad_prompts_are_refused(prompt, message):
    assert message in refusal(bf.OptionError, FRAME, prompt)


def test_system_must_be_a_template_or_an_expression():
    assert "system must be a template or an expression, got int" in refusal(bf.OptionError, FRAME, "{x}", system=3)
    assert "system names {nope}" in refusal(bf.TemplateError, FRAME, "{x}", system="{nope}")


# -- nulls


NULLABLE = {
    "template": ("<{maybe}>", {}, ["<p>", "<>", "<q>"], "column 'maybe' is null"),
    "expression": (pl.col("maybe"), {}, ["p", "", "q"], "prompt is null"),
    "message": ([USER, {"role": "user", "content": "{maybe}"}], {}, ["p", "", "q"], "column 'maybe' is null"),
    "message by expression": ([USER, {**USER, "content": pl.col("maybe")}], {}, ["p", "", "q"], "message 1 is null"),
    "system": ("{x}", {"system": "{maybe}"}, ["a", "b", "c"], "column 'maybe' is null"),
    "system by expression": ("{x}", {"system": pl.col("maybe")}, ["a", "b", "c"], "system is null"),
}  # fmt: skip


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize("kind", NULLABLE)
def test_null_inputs(kind, as_frame):
    prompt, options, rendered, message = NULLABLE[kind]
    frame = as_frame(FRAME)
    assert [conversation is None for conversation in messages(frame, prompt, **options)] == [False, True, False]
    assert codes(frame, prompt, **options) == [(None, None), ("null_input", message), (None, None)]
    assert contents(frame, prompt, on_null="render", **options) == rendered
    assert codes(frame, prompt, on_null="render", **options) == [(None, None)] * 3
    assert refusal(bf.InputError, frame, prompt, on_null="raise", **options) == (
        f'{message} in row 1, and on_null is "raise"'
    )


def test_rendered_null_system_message_is_empty():
    got = messages(FRAME, "{x}", system=pl.col("maybe"), on_null="render")
    assert [conversation[0] for conversation in got] == [{"role": "system", "content": text} for text in ("p", "", "q")]


def test_row_error_is_the_first_reason():
    frame = pl.DataFrame(
        {"a": [None, [1.0]], "b": [[float("nan")], [float("nan")]]}, schema_overrides={"a": pl.List(pl.Float64)}
    )
    assert codes(frame, "{a}{b}") == [
        ("null_input", "column 'a' is null"),
        ("invalid_input", "column 'b' contains NaN or infinity, which JSON cannot represent"),
    ]


def test_parameter_without_json_form_skips_its_row():
    frame = FRAME.with_columns(t=pl.Series([0.5, float("nan"), None]), s=pl.Series([Decimal("0.10"), None, Decimal(2)]))
    got = lines(frame, "{x}", temperature=pl.col("t"), top_p=pl.col("s"))
    assert [line and line.split("}],")[1] for line in got] == [
        '"temperature":0.5,"top_p":0.10}}', None, '"top_p":2.00}}'
    ]  # fmt: skip
    assert codes(frame, "{x}", temperature=pl.col("t"))[1] == (
        "invalid_input", "temperature contains NaN or infinity, which JSON cannot represent"
    )  # fmt: skip


# -- conversations


def conversation(rows, **fields):
    dtype = pl.List(pl.Struct({"role": pl.String, "content": pl.String, **fields}))
    return pl.DataFrame({"chat": pl.Series(rows, dtype=dtype), "x": [str(row) for row in range(len(rows))]})


def said_by(role, content, **fields):
    return {"role": role, "content": content, **fields}


@pytest.mark.usefixtures("_slices")
def test_conversations(as_frame):
    rows = [
        [said_by("user", 'a"\n')],
        [said_by("system", "s"), said_by("user", "b"), said_by("assistant", "c"), said_by("user", "{x}")],
        [said_by("user", "")],
    ]
    frame = as_frame(conversation(rows))
    assert messages(frame, pl.col("chat")) == rows
    assert messages(frame, pl.col("chat"), system="S{x}") == [
        [said_by("system", f"S{n}"), *row] for n, row in enumerate(rows)
    ]
    assert lines(frame.head(1), pl.col("chat"))[0].endswith('"messages":[{"role":"user","content":"a\\"\\n"}]}}')


@pytest.mark.usefixtures("_slices")
def test_invalid_conversations_are_skipped(as_frame):
    rows = [
        [said_by("user", "good")],
        None,
        [],
        [said_by("user", "a"), said_by("user", None)],
        [said_by(None, "a")],
        [said_by("usr", "a")],
        [None, said_by("user", "a")],
    ]
    frame = as_frame(conversation(rows))
    role = ("invalid_input", "a message's role is not one of system, developer, user, assistant, tool, function")
    none = ("invalid_input", "the conversation has no messages")
    assert codes(frame, pl.col("chat")) == [
        (None, None), ("null_input", "prompt is null"), none, ("null_input", "a message's content is null"),
        role, role, role,
    ]  # fmt: skip
    assert [line is None for line in lines(frame, pl.col("chat"))] == [False] + [True] * 6
    rendered = codes(frame, pl.col("chat"), on_null="render")
    assert rendered == [
        (None, None),
        ("invalid_input", "the conversation is null"),
        none,
        (None, None),
        role,
        role,
        role,
    ]
    assert messages(frame, pl.col("chat"), on_null="render")[3] == [said_by("user", "a"), said_by("user", "")]
    assert "prompt is null in row 1" in refusal(bf.InputError, frame, pl.col("chat"), on_null="raise")


def test_non_null_message_fields_are_sent():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    rows = [
        [
            said_by("user", "a", name="Ada", tool_calls=None, tool_call_id=None),
            said_by("assistant", None, name=None, tool_calls=[call], tool_call_id=None),
            said_by("tool", "b", name=None, tool_calls=None, tool_call_id="call_1"),
        ]
    ]
    function = pl.Struct({"name": pl.String, "arguments": pl.String})
    calls = pl.List(pl.Struct({"id": pl.String, "type": pl.String, "function": function}))
    frame = conversation(rows, name=pl.String, tool_calls=calls, tool_call_id=pl.String)
    wanted = [
        said_by("user", "a", name="Ada"),
        said_by("assistant", None, tool_calls=[call]),
        said_by("tool", "b", tool_call_id="call_1"),
    ]
    assert messages(frame, pl.col("chat")) == [wanted]
    assert messages(frame, pl.col("chat"), on_null="render") == [wanted]


def test_content_may_be_a_list_of_parts():
    text = {"type": "text", "text": "a", "image_url": None}
    image = {"type": "image_url", "text": None, "image_url": {"url": "https://x/y.png", "detail": None}}
    part = pl.Struct(
        {"type": pl.String, "text": pl.String, "image_url": pl.Struct({"url": pl.String, "detail": pl.String})}
    )
    dtype = pl.List(pl.Struct({"content": pl.List(part), "role": pl.Enum(["user"])}))
    chats = [[{"content": [text, image], "role": "user"}], [{"content": None, "role": "user"}], None]
    frame = pl.DataFrame({"chat": pl.Series(chats, dtype=dtype)})
    sent = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    assert messages(frame, pl.col("chat")) == [[said_by("user", sent)], None, None]
    assert messages(frame, pl.col("chat"), on_null="render") == [[said_by("user", sent)], [said_by("user", "")], None]


def test_content_of_other_dtypes_is_text():
    dtype = pl.List(pl.Struct({"role": pl.Categorical, "content": pl.Int64}))
    frame = pl.DataFrame({"chat": pl.Series([[said_by("user", 3)]], dtype=dtype)})
    assert messages(frame, pl.col("chat")) == [[said_by("user", "3")]]
    array = frame.select(pl.col("chat").list.to_array(1))
    assert messages(array, pl.col("chat")) == [[said_by("user", "3")]]


def test_nan_in_a_conversation_skips_its_row():
    rows = [[said_by("user", "a", weight=float("nan"))], [said_by("user", "b", weight=1.0)]]
    frame = conversation(rows, weight=pl.Float64)
    assert messages(frame, pl.col("chat")) == [None, [said_by("user", "b", weight=1.0)]]


@pytest.mark.parametrize(
    "dtype", [pl.List(pl.String), pl.List(pl.Struct({"role": pl.String})), pl.Array(pl.Int64, 1)], ids=str
)
def test_lists_that_are_not_conversations_are_refused(dtype):
    frame = pl.DataFrame({"chat": pl.Series([None], dtype=dtype)})
    message = refusal(bf.TemplateError, frame, pl.col("chat"))
    assert message.startswith("the prompt has dtype ")
    assert message.endswith("a conversation must be List(Struct) with the fields role and content")


# -- expressions see the whole frame


WHOLE = {
    "mean": pl.format("{} of {}", "n", pl.col("n").mean()),
    "len": pl.format("{} of {}", "n", pl.len()),
    "rank": pl.format("{}", pl.col("n").rank(descending=True)),
    "over": pl.format("{}/{}", "n", pl.col("n").sum().over("g")),
    "shift": pl.format("{} after {}", "n", pl.col("n").shift(1).fill_null(-1)),
    "cum_sum": pl.format("{}", pl.col("n").cum_sum()),
    "reverse": pl.format("{}", pl.col("n").reverse()),
    "int_range": pl.format("{}", pl.int_range(pl.len())),
    "when": pl.when(pl.col("n") > 5).then(pl.lit("big")).otherwise(pl.col("g")),
    "coalesce": pl.coalesce(pl.lit(None, pl.String), "g"),
    "python by value": pl.col("g").map_elements(lambda value: format(value, ">3"), return_dtype=pl.String),
    "python by batch": pl.col("n").map_batches(
        lambda s: s.sort(descending=True).cast(pl.String), return_dtype=pl.String
    ),
    "struct": pl.struct("n", "g"),
    "literal": pl.lit(pl.Series([f"s{row}" for row in range(9)])),
}


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize("kind", WHOLE)
def test_expressions_match_with_columns(kind, as_frame):
    frame = pl.DataFrame({"n": [4, 1, 7, 2, 9, 3, 8, 5, 6], "g": list("aabbcacab")})
    column = frame.with_columns(WHOLE[kind].alias("p"))["p"]
    wanted = column.struct.json_encode() if kind == "struct" else column
    assert contents(as_frame(frame), WHOLE[kind]) == wanted.to_list()
    assert contents(as_frame(frame), [{"role": "user", "content": WHOLE[kind]}]) == wanted.to_list()
    assert contents(as_frame(frame), "{n}", system=WHOLE[kind]) == [str(n) for n in frame["n"]]
    name = "prediction" if kind == "struct" else "user"
    got = [json.loads(line)["body"][name] for line in lines(as_frame(frame), "{n}", **{name: WHOLE[kind]})]
    assert got == column.to_list()


@pytest.mark.usefixtures("_slices")
def test_constant_expression_may_be_parameter_or_system(as_frame):
    got = lines(as_frame(FRAME), "{x}", seed=pl.col("n").max(), user=pl.lit("u"), system=pl.col("x").first())
    assert [json.loads(line)["body"]["seed"] for line in got] == [3, 3, 3]
    assert [json.loads(line)["body"]["user"] for line in got] == ["u", "u", "u"]
    assert [json.loads(line)["body"]["messages"][0]["content"] for line in got] == ["a", "a", "a"]


@pytest.mark.parametrize("height", [0, 1, 3])
@pytest.mark.parametrize(
    "expression", [pl.lit("x"), pl.col("n").mean(), pl.col("x").first(), pl.len(), pl.col("n").sum() + 1], ids=str
)
def test_constant_expression_is_refused_as_prompt(expression, height, as_frame):
    frame = as_frame(FRAME.head(height))
    message = refusal(bf.OptionError, frame, expression)
    assert "the prompt expression gives one value for all rows" in message
    fixed = {"role": "system", "content": "fixed"}
    assert message == refusal(bf.OptionError, frame, [fixed, {"role": "user", "content": expression}])
    assert len(lines(frame, [{"role": "user", "content": expression}, USER])) == height  # something else varies


def test_prompt_expression_on_a_frame_of_one_row(as_frame):
    assert contents(as_frame(FRAME.head(1)), pl.col("x") + "!") == ["a!"]
    assert contents(as_frame(FRAME.head(0)), pl.col("x") + "!") == []


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize(
    "expression",
    [
        pl.col("x").filter(pl.col("n") > 1),
        pl.col("x").filter(pl.col("n") == 2),  # leaves one row, which with_columns of the streaming engine repeats
        pl.col("maybe").drop_nulls(),
        pl.col("maybe").filter(pl.col("maybe").is_null()),
        pl.col("x").head(2),
        pl.col("x").append(pl.col("x")),
        pl.col("x").str.split("").explode(),
        pl.col("g").unique(),
        pl.lit(pl.Series(["a", "b"])),
        pl.col("x").map_batches(lambda values: values.filter(values == "b"), return_dtype=pl.String),
    ],
    ids=range(10),
)
def test_expressions_that_change_the_height_are_refused(expression, as_frame):
    frame = as_frame(FRAME.with_columns(g=pl.Series(["a", "b", "a"]), x=pl.Series(["aa", "bb", "b"])))
    for prompt, options in (
        (expression, {}),
        ([{"role": "user", "content": expression}], {}),
        ("{x}", {"system": expression}),
        ("{x}", {"user": expression}),
    ):
        message = refusal(bf.OptionError, frame, prompt, **options)
        assert "changes the number of rows" in message or "gives one value for all rows" in message


def test_unique_is_allowed_on_distinct_values(as_frame):
    assert contents(as_frame(FRAME), pl.col("x").unique(maintain_order=True)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (pl.col("nope"), "the expression for prompt does not fit the frame: "),
        (pl.col("x").dt.year(), "`year` operation not supported for dtype `str`"),
        (
            pl.all(),
            "the expression for prompt gives 3 columns ('x', 'n', 'maybe'), expected one: join them, as pl.format does",
        ),
        (cs.string(), "the expression for prompt gives 2 columns ('x', 'maybe'), expected one"),
        (pl.col("x", "n"), "the expression for prompt gives 2 columns"),
        (cs.float(), "the expression for prompt gives 0 columns, expected one"),
        (pl.element(), "the expression for prompt does not fit the frame: "),
    ],
    ids=str,
)
def test_expressions_that_do_not_fit_are_refused(expression, message, as_frame):
    assert message in refusal(bf.TemplateError, as_frame(FRAME), expression)


def test_unknown_column_error_lists_the_columns():
    assert "nope" in refusal(bf.TemplateError, FRAME, pl.col("nope"))
    assert refusal(bf.TemplateError, FRAME, pl.col("nope")).endswith("Columns: 'x', 'n', 'maybe'")


def test_expression_is_not_called_with_dummy_nulls(as_frame):
    def upper(values):
        assert values.null_count() == 0
        return values.str.to_uppercase()

    assert contents(as_frame(FRAME), pl.col("x").map_batches(upper, return_dtype=pl.String)) == ["A", "B", "C"]


def test_expression_is_evaluated_once():
    heights = []

    def count(values):
        heights.append(len(values))
        return values

    contents(FRAME, pl.col("x").map_batches(count, return_dtype=pl.String))
    assert heights == [3]


def test_a_selector_of_one_column_is_an_expression():
    assert contents(FRAME.select("x", "n"), cs.string()) == ["a", "b", "c"]


# -- ids


def ids(frame, name="id", **options):
    return bf.requests(frame, "{x}", model="m", custom_id=name, **options)["custom_id"].to_list()


@pytest.mark.usefixtures("_slices")
def test_custom_ids(as_frame):
    frame = FRAME.with_columns(id=pl.Series(["k", "l", "m"]), big=pl.Series([2**63, 0, 7], dtype=pl.UInt64))
    assert ids(as_frame(frame)) == ["k", "l", "m"]
    assert ids(as_frame(frame), "big") == ["9223372036854775808", "0", "7"]
    assert bf.requests(as_frame(frame), "{x}", model="m")["custom_id"].to_list() == ["row-0", "row-1", "row-2"]
    assert ids(as_frame(pl.DataFrame({"x": ["a"], "id": ["é" * 64]}))) == ["é" * 64]


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize(
    ("bad", "message"),
    [(None, "null"), ("", "empty"), ("k" * 65, "longer than 64 characters")],
)
def test_bad_custom_ids_are_refused(bad, message, as_frame):
    frame = pl.DataFrame({"x": ["a", "b", "c"], "id": ["k", "l", bad]})
    assert refusal(bf.InputError, as_frame(frame), "{x}", custom_id="id") == (
        f"custom_id column 'id' is {message} in row 2: every row needs its own id"
    )


def test_null_integer_id_is_refused():
    assert "is null in row 1" in refusal(
        bf.InputError, pl.DataFrame({"x": ["a", "b"], "id": [1, None]}), "{x}", custom_id="id"
    )


def test_custom_id_column_errors():
    frame = FRAME.with_columns(f=pl.col("n").cast(pl.Float64))
    assert (
        refusal(bf.InputError, frame, "{x}", custom_id="f")
        == "custom_id column 'f' is Float64: it must be String or an integer"
    )
    assert "Did you mean 'maybe'?" in refusal(bf.TemplateError, frame, "{x}", custom_id="mybe")


@pytest.mark.parametrize("values", [["k", "l", "k"], [1, 2, 1]], ids=["text", "integers"])
def test_duplicate_ids_are_refused_before_submission(values, client, emu):
    frame = pl.DataFrame({"x": ["a", "b", "c"], "id": values})
    for call, options in ((bf.run, {"client": client, "poll_seconds": 0.05}), (bf.requests, {})):
        with pytest.raises(bf.InputError, match=rf"custom_id column 'id' has '{values[0]}' in rows 0, 2: "):
            call(frame, "{x}", model="gpt-4o-mini", custom_id="id", **options)
    assert client.files.list().data == []
