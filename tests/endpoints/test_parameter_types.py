"""Values and columns of request parameters: accepted types, and the message of each refusal."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import batchframe as bf
from batchframe._endpoints import parameter_checks
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._endpoints.registry import ENDPOINTS
from batchframe.emulator import _errors
from batchframe.emulator._endpoints import chat_checks, completions, embeddings, moderations, responses_checks

CHAT, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/completions"
EMBEDDINGS, MODERATIONS = "/v1/embeddings", "/v1/moderations"
FRAME = pl.DataFrame(
    {
        "x": ["a", "b"],
        "whole": [1, None],
        "fraction": [1.0, None],
        "flag": [True, None],
        "texts": [["a"], []],
        "wholes": [[1], []],
        "struct": [{"a": 1}, None],
        "structs": [[{"a": 1}], []],
        "nothing": [None, None],
        "bytes": [b"a", None],
    }
)


def line(**options):
    return json.loads(bf.requests(FRAME, "{x}", model="m", **options)["request"][0])["body"]


def refusal(**options):
    with pytest.raises(bf.OptionError) as caught:
        bf.requests(FRAME, "{x}", model="m", **options)
    return str(caught.value)


def problem(endpoint, name, value):
    """Return the error message for a constant value, or None."""
    try:
        parameter_checks.check_values(endpoint, {name: value})
    except bf.OptionError as error:
        return str(error)
    return None


def problem_of(endpoint, name, dtype):
    """Return the error message for a column's dtype, or None."""
    try:
        parameter_checks.check_dtypes(endpoint, {name: dtype})
    except bf.OptionError as error:
        return str(error)
    return None


# -- values


class Effort(str, enum.Enum):
    LOW = "low"


class Level(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("temperature", 0, 0),
        ("temperature", Level.ONE, 1),
        ("top_p", Decimal("0.5"), 0.5),
        ("max_tokens", Decimal(10), 10),
        ("seed", -(2**63), -(2**63)),
        ("stop", "a", "a"),
        ("stop", ["a", "b"], ["a", "b"]),
        ("stop", ("a",), ["a"]),
        ("stop", [], []),
        ("logit_bias", {"50256": -100}, {"50256": -100}),
        ("logit_bias", {50256: -0.5}, {"50256": -0.5}),
        ("tools", [{"type": "function", "new": 1}], [{"type": "function", "new": 1}]),
        ("tool_choice", "auto", "auto"),
        ("tool_choice", {"type": "new"}, {"type": "new"}),
        ("reasoning_effort", Effort.LOW, "low"),
        ("modalities", ["text"], ["text"]),
        ("prediction", {"type": "content", "content": "a"}, {"type": "content", "content": "a"}),
        ("service_tier", "flex", "flex"),
        ("user", dt.date(2024, 1, 2), "2024-01-02"),
        ("logprobs", True, True),
    ],
)
def test_valid_values(name, value, sent):
    assert line(**{name: value})[name] == sent


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "0", "temperature must be a number, got '0'."),
        ("temperature", True, "temperature must be a number, got True."),
        ("temperature", [0], "temperature must be a number, got [0]."),
        ("max_tokens", 10.0, "max_tokens must be a whole number, got 10.0: write 10."),
        ("max_tokens", 10.5, "max_tokens must be a whole number, got 10.5."),
        ("max_tokens", Decimal("1.5"), "max_tokens must be a whole number, got Decimal('1.5')."),
        ("seed", False, "seed must be a whole number, got False."),
        ("logprobs", 5, "logprobs must be a boolean, got 5."),
        ("user", 5, "user must be text, got 5."),
        ("stop", 5, "stop must be text or a list of texts, got 5."),
        ("stop", ["a", 5], "stop[1] must be text, got 5."),
        ("stop", ["a", None], "stop[1] must be text, got None."),
        ("logit_bias", [], "logit_bias must be a dict, got []."),
        ("tools", {"type": "function"}, "tools must be a list of dicts, got {'type': 'function'}: put it in a list."),
        ("tools", [{}, "f"], "tools[1] must be a dict, got 'f'."),
        ("modalities", "text", """modalities must be a list of "text" or "audio", got 'text': put it in a list."""),
        ("modalities", ["txt"], """modalities[0] must be "text" or "audio", got 'txt'. Did you mean 'text'?"""),
        ("tool_choice", 1, 'tool_choice must be "none", "auto", "required" or a dict, got 1.'),
        ("verbosity", "hgih", """verbosity must be "low", "medium" or "high", got 'hgih'. Did you mean 'high'?"""),
        ("verbosity", "LOW", """verbosity must be "low", "medium" or "high", got 'LOW'. Did you mean 'low'?"""),
        ("verbosity", "zzz", """verbosity must be "low", "medium" or "high", got 'zzz'."""),
        ("verbosity", dt.date(2024, 1, 2), 'verbosity must be "low", "medium" or "high", got datetime.date('),
    ],
)
def test_invalid_values(name, value, expected):
    message = refusal(**{name: value})
    assert message.startswith(expected)
    assert message.endswith(f" To send it anyway: extra_body={{'{name}': …}}")
    assert line(extra_body={name: value})[name] is not None


def test_long_value_is_shortened_in_error():
    assert len(refusal(seed=[{"a": 1}] * 1000)) < 250


def test_parameter_replaced_by_extra_body_is_not_checked():
    assert line(seed="a", extra_body={"seed": "b"})["seed"] == "b"


@pytest.mark.parametrize(
    ("endpoint", "name", "value"),
    [
        (COMPLETIONS, "logprobs", 5),
        (COMPLETIONS, "echo", True),
        (EMBEDDINGS, "encoding_format", "base64"),
        (RESPONSES, "reasoning", {"effort": "new"}),
        (RESPONSES, "conversation", "conv_1"),
        (RESPONSES, "tools", [{"type": "web_search"}]),
        (RESPONSES, "truncation", "auto"),
        (MODERATIONS, "not of the table", object),
    ],
)
def test_valid_values_of_other_endpoints(endpoint, name, value):
    assert problem(endpoint, name, value) is None


@pytest.mark.parametrize(
    ("endpoint", "name", "value", "expected"),
    [
        (COMPLETIONS, "logprobs", True, "logprobs must be a whole number, got True."),
        (EMBEDDINGS, "dimensions", "256", "dimensions must be a whole number, got '256'."),
        (EMBEDDINGS, "encoding_format", "b64", 'encoding_format must be "float" or "base64"'),
        (RESPONSES, "reasoning", "low", "reasoning must be a dict, got 'low'."),
        (RESPONSES, "truncation", "atuo", "Did you mean 'auto'?"),
        (RESPONSES, "conversation", 5, "conversation must be text or a dict, got 5."),
    ],
)
def test_invalid_values_of_other_endpoints(endpoint, name, value, expected):
    assert expected in problem(endpoint, name, value)


# -- columns


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("temperature", pl.col("whole"), 1),
        ("temperature", pl.col("fraction"), 1.0),
        ("temperature", pl.col("fraction").cast(pl.Decimal(10, 2)), 1.0),
        ("seed", pl.col("whole").cast(pl.UInt8), 1),
        ("seed", pl.col("fraction").cast(pl.Int64), 1),
        ("seed", pl.col("whole").cast(pl.Decimal(10, 0)), 1),
        ("store", pl.col("flag"), True),
        ("user", pl.col("x"), "a"),
        ("user", pl.col("x").cast(pl.Categorical), "a"),
        ("user", pl.col("whole").cast(pl.String), "1"),
        ("reasoning_effort", pl.col("x").cast(pl.Enum(["a", "b"])), "a"),  # the service checks the values
        ("stop", pl.col("x"), "a"),
        ("stop", pl.col("texts"), ["a"]),
        ("stop", pl.concat_list("x", "x").list.to_array(2), ["a", "a"]),
        ("stop", pl.concat_list(pl.col("nothing")), [None]),
        ("logit_bias", pl.col("struct"), {"a": 1}),
        ("tools", pl.col("structs"), [{"a": 1}]),
        ("tool_choice", pl.col("struct"), {"a": 1}),
    ],
    ids=str,
)
def test_valid_columns(name, value, sent):
    assert line(**{name: value})[name] == sent


@pytest.mark.parametrize("name", sorted(PARAMETERS[CHAT]))
def test_null_column_is_valid_for_every_parameter(name):
    assert problem_of(CHAT, name, pl.Null()) is None
    assert problem_of(CHAT, name, pl.Unknown()) is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", pl.col("fraction"), "whole number, got an expression of dtype Float64: .cast(pl.Int64) converts it."),
        ("seed", pl.col("fraction").cast(pl.Decimal(10, 2)), "Decimal(precision=10, scale=2): .cast(pl.Int64)"),
        ("seed", pl.col("x"), "a whole number, got an expression of dtype String: .cast(pl.Int64) converts it."),
        ("seed", pl.col("flag"), "a whole number, got an expression of dtype Boolean."),
        ("temperature", pl.col("x"), "a number, got an expression of dtype String: .cast(pl.Float64) converts it."),
        ("temperature", pl.col("flag"), "a number, got an expression of dtype Boolean."),
        ("temperature", pl.lit("0"), "a number, got an expression of dtype String: .cast(pl.Float64) converts it."),
        ("store", pl.col("whole"), "a boolean, got an expression of dtype Int64."),
        ("user", pl.col("whole"), "text, got an expression of dtype Int64: .cast(pl.String) converts it."),
        ("user", pl.col("texts"), "text, got an expression of dtype List(String)."),
        ("verbosity", pl.col("whole"), '"low", "medium" or "high", got an expression of dtype Int64.'),
        ("stop", pl.col("wholes"), "text or a list of texts, got an expression of dtype List(Int64)."),
        ("tools", pl.col("x"), "dicts, got an expression of dtype String: .str.json_decode(dtype) converts it."),
        ("tools", pl.col("struct"), "dtype Struct({'a': Int64}): pl.concat_list(…) converts it."),
        ("tools", pl.col("texts"), "a list of dicts, got an expression of dtype List(String)."),
        ("logit_bias", pl.col("texts"), "a dict, got an expression of dtype List(String)."),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_columns(name, value, expected):
    message = refusal(**{name: value})
    assert expected in message
    assert message.startswith(f"{name} must be ")
    assert message.endswith(f" To send it anyway: extra_body={{'{name}': …}}")
    assert line(extra_body={name: value})[name] is not None


def test_binary_column_has_its_own_error():
    with pytest.raises(bf.TemplateError, match=r"user has dtype Binary, .* for example with .bin.encode\('base64'\)"):
        line(user=pl.col("bytes"))


def test_lazy_column_is_checked_without_evaluation():
    frame = pl.LazyFrame({"x": ["a"]}).map_batches(lambda _: pytest.fail("evaluated"), schema={"x": pl.String})
    with pytest.raises(bf.OptionError, match="seed must be a whole number, got an expression of dtype String"):
        bf.submit(frame, "{x}", model="m", seed=pl.col("x"))


# -- other endpoints' names


@pytest.mark.parametrize(
    ("endpoint", "name", "expected"),
    [
        (RESPONSES, "max_tokens", "max_output_tokens"),
        (RESPONSES, "max_completion_tokens", "max_output_tokens"),
        (RESPONSES, "reasoning_effort", 'reasoning={"effort": "…"}'),
        (RESPONSES, "verbosity", 'text={"verbosity": "…"}'),
        (RESPONSES, "functions", "tools"),
        (CHAT, "max_output_tokens", "max_completion_tokens"),
        (CHAT, "reasoning", 'reasoning_effort="…"'),
        (CHAT, "text", 'verbosity="…" or response_format'),
        (CHAT, "instructions", "system"),
        (COMPLETIONS, "max_completion_tokens", "max_tokens"),
    ],
)
def test_parameter_with_another_name_at_another_endpoint(endpoint, name, expected):
    assert parameter_checks.elsewhere(endpoint, name) == f" It is {expected} there."


def test_parameter_of_other_endpoints_only():
    assert parameter_checks.elsewhere(RESPONSES, "suffix") == f" It is a parameter of {COMPLETIONS}."
    assert parameter_checks.elsewhere(EMBEDDINGS, "seed") == f" It is a parameter of {CHAT}, {COMPLETIONS}."
    assert parameter_checks.elsewhere(EMBEDDINGS, "dimension") == ""
    message = refusal(max_output_tokens=5)
    assert f"nor a parameter of {CHAT}. It is max_completion_tokens there. To send it anyway:" in message
    assert "Did you mean 'dedupe'" not in refusal(truncation="auto")


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_renamed_parameters_exist(endpoint):
    for name, hint in ENDPOINTS[endpoint].renamed_parameters.items():
        first = hint.partition("=")[0]
        assert name not in PARAMETERS[endpoint]
        assert first in PARAMETERS[endpoint] or first in {"system", "extra_body"}


def test_renamed_parameters_match_the_service():
    moved = responses_checks._MOVED.items()
    hints = {name: ENDPOINTS[RESPONSES].renamed_parameters.get(name, "").partition("=")[0] for name, _ in moved}
    ours = {"messages", "response_format"}
    assert {name: text for name, text in hints.items() if name not in ours} == {
        name: place.partition(".")[0] for name, place in moved if name not in ours
    }


# -- as text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0", 0),
        ("seed", "1", 1),
        ("user", "123", "123"),
        ("user", "true", "true"),
        ("user", '"123"', "123"),
        ("user", "null", None),
        ("user", "007", "007"),
        ("user", "1e5", "1e5"),
        ("stop", "5", "5"),
        ("stop", '["a", "b"]', ["a", "b"]),
        ("stop", "{", "{"),
        ("stop", "[" * 100_000, "[" * 100_000),
        ("store", "true", True),
        ("store", "True", True),
        ("store", "yes", "yes"),
        ("user", "True", "True"),
        ("reasoning_effort", "low", "low"),
        ("tool_choice", '{"type": "function"}', {"type": "function"}),
        ("temperature", "hot", "hot"),
        ("nothing of the table", "5", 5),
    ],
)
def test_parameters_from_text(name, text, value):
    parsed = parameter_checks.from_text(CHAT, name, text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_parameters_from_text_at_unknown_endpoint():
    assert parameter_checks.from_text("/v1/none", "user", "5") == 5


# -- another attempt


def test_retry_parameters_are_checked(emulate):
    with emulate() as service:
        run = bf.submit(FRAME, "{x}", model="gpt-4o-mini", client=service.client(), poll_seconds=0.02)
        run.wait()
        calls = service.calls()
        for value in ("hot", pl.col("x")):
            with pytest.raises(bf.OptionError, match="temperature must be a number, got"):
                run.retry(pl.lit(value=True), temperature=value)
        with pytest.raises(bf.OptionError, match="seed must be a whole number, got an expression of dtype Float64"):
            run.retry(pl.lit(value=True), seed=pl.col("fraction"))
        with pytest.raises(bf.OptionError, match=r"It is max_completion_tokens there\."):
            run.retry(pl.lit(value=True), max_output_tokens=5)
        assert service.calls() == calls
        run.retry(pl.lit(value=True), extra_body={"user": pl.col("x")}, temperature=None, seed=pl.col("whole"))
        assert run.wait().succeeded == 2


# -- against the emulator's own tables

TABLES = {
    CHAT: chat_checks.PARAMETERS,
    COMPLETIONS: completions.PARAMETERS,
    EMBEDDINGS: embeddings.PARAMETERS,
    MODERATIONS: moderations.PARAMETERS,
    RESPONSES: responses_checks.PARAMETERS,
}
# Parameters that the emulator leaves open but the SDK's types do not.
OPEN = {(CHAT, "function_call"), (RESPONSES, "include")}
TEXTS = sorted(
    {text for names in PARAMETERS.values() for kinds in names.values() for text in kinds.get("text") or ()}
    | {"a", "END", "0"}
)
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.integers(0, 20), st.floats(-2, 2), st.text(max_size=5), st.sampled_from(TEXTS)
)
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
OBJECTS = st.one_of(
    st.dictionaries(st.sampled_from(["type", "name", "effort", "id", "1", "a"]), SCALARS, max_size=3),
    st.dictionaries(st.text("0123456789", min_size=1, max_size=5), st.integers(-100, 100), max_size=3),
    st.sampled_from(
        [{"type": "function", "function": FUNCTION}, {"type": "function", **FUNCTION}, {"type": "text"}, FUNCTION,
         {"effort": "low"}, {"verbosity": "low", "format": {"type": "text"}}, {"role": "user", "content": "a"}]
    ),
)  # fmt: skip
VALUES = st.one_of(SCALARS, OBJECTS, st.lists(st.one_of(SCALARS, OBJECTS), max_size=3), st.lists(SCALARS, max_size=3))
PLACES = [(endpoint, name) for endpoint, names in PARAMETERS.items() for name in names if name in TABLES[endpoint]]


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_emulator_has_the_same_parameter_names(endpoint):
    assert TABLES[endpoint].keys() == PARAMETERS[endpoint].keys() - {"stream_options", "stream"} | (
        TABLES[endpoint].keys() & {"stream_options", "stream"}
    )


@given(VALUES)
@example("flex")
@example(["text"])
@example([{"type": "function", "function": FUNCTION}])
@example([{"type": "function", **FUNCTION}])
@example([["a"]])
@example([[1, 2]])
def test_type_checks_agree_with_the_emulator(value):
    for endpoint, name in PLACES:
        message = problem(endpoint, name, value)
        try:
            TABLES[endpoint][name](name, value)
        except _errors.ApiError as error:
            if error.code == "invalid_type" and error.param == name:
                assert message is not None, (endpoint, name)
        else:
            assert message is None or (endpoint, name) in OPEN, (endpoint, name)
