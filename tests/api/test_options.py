"""Options and body parameters: accepted values, and the message of each refusal."""

from __future__ import annotations

import datetime as dt
import enum
import importlib.util
import inspect
import json
import numbers
from decimal import Decimal
from pathlib import Path

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._api import options as _options
from batchframe._core.option_names import NOT_YET, OPTION_NAMES
from batchframe._endpoints.parameter_table import PARAMETERS
from batchframe._requests.parameters import _OF_AZURE, _OF_OPENAI
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.columns import added_schema
from batchframe._results.extra_columns import EXTRA_COLUMNS

FRAME = pl.DataFrame({"x": ["a", "b"], "n": [1, None]})
CHAT = "/v1/chat/completions"


def bodies(**options):
    rows = bf.requests(FRAME, "{x}", model="m", **options)
    return [json.loads(line)["body"] for line in rows["request"]]


def parameters(**options):
    (first, _) = bodies(**options)
    return {name: value for name, value in first.items() if name not in {"model", "messages"}}


def refusal(**options):
    with pytest.raises(bf.OptionError) as caught:
        bf.requests(FRAME, "{x}", **{"model": "m", **options})
    return str(caught.value)


# -- the table


def test_options_share_no_unlisted_name_with_parameters():
    # Made from the call, or reached by extra_body, according to the table of options.
    known = {"model", "prompt", "response_format", "metadata", "include"}
    for endpoint, names in PARAMETERS.items():
        assert OPTION_NAMES & names.keys() <= known, endpoint


def test_parameters_are_those_of_the_sdk():
    path = Path(__file__).parents[2] / "scripts" / "generate_parameters.py"
    spec = importlib.util.spec_from_file_location("generate_parameters", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = script.TARGET.read_text()
    if f"openai {openai.__version__}." in written:
        assert script.generate() == written, "run scripts/generate_parameters.py"
    for endpoint, type_ in script.TYPES.items():
        assert set(type_.__annotations__) <= PARAMETERS[endpoint].keys(), "a name that this SDK has is refused"


def test_included_columns_are_those_of_the_schema():
    assert list(added_schema(EXTRA_COLUMNS, AnswerFormat()))[-len(EXTRA_COLUMNS) :] == list(EXTRA_COLUMNS)
    assert not set(EXTRA_COLUMNS) & _options._NOT_YET_INCLUDED


def test_none_means_the_default_of_each_option():
    names = OPTION_NAMES - NOT_YET - {"model"}
    assert _options.parse({"model": "m", **dict.fromkeys(names)}) == _options.parse({"model": "m"})


# -- names


def test_invalid_models():
    for nothing in (None, "", "  "):
        assert refusal(model=nothing) == f"model must be a model id or deployment name, got {nothing!r}"
    assert "model must be a string, got" in refusal(model=pl.col("x"))
    assert "a run uses one model" in refusal(model=["a", "b"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("poll_second", "poll_seconds"),
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("custom_ids", "custom_id"),
        ("Seed", "seed"),
    ],
)
def test_unknown_names_get_a_suggestion(name, meant):
    message = refusal(**{name: 1})
    assert f"'{name}' is neither a batchframe option nor a parameter of {CHAT}." in message
    assert f"Did you mean {meant!r}?" in message
    assert f"extra_body={{'{name}': …}}" in message


def test_distant_names_get_no_suggestion():
    assert "Did you mean" not in refusal(zzzzzzzz=1)


@pytest.mark.parametrize("name", ["stream", "stream_options"])
@pytest.mark.parametrize("value", [True, False, None])
def test_streaming_is_refused(name, value):
    assert refusal(**{name: value}).startswith(f"{name} is not supported: a batch cannot stream")


def test_client_settings_are_not_parameters():
    assert refusal(api_key="sk-x") == "api_key is a client setting: pass client=openai.OpenAI(api_key=…)"
    message = "azure_endpoint is a client setting: pass client=openai.AzureOpenAI(azure_endpoint=…)"
    assert refusal(azure_endpoint="https://x") == message
    for names, client in ((_OF_OPENAI, openai.OpenAI), (_OF_AZURE, openai.AzureOpenAI)):
        assert names <= inspect.signature(client).parameters.keys()


def test_background_is_refused():
    assert "background is not supported" in refusal(background=True)


@pytest.mark.parametrize("name", ["messages", "input"])
def test_members_made_from_the_prompt_are_refused(name):
    assert refusal(**{name: []}) == f"{name} comes from the prompt: pass it as the prompt argument"


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_planned_options_are_refused_by_name(name):
    assert refusal(**{name: 1}) == f"{name} is not available in this version of batchframe: leave it out"


def test_endpoints():
    assert bodies(endpoint=None) == bodies(endpoint=CHAT)
    message = refusal(endpoint="/v1/chat/completion")
    assert "unknown endpoint '/v1/chat/completion'. Did you mean '/v1/chat/completions'?" in message
    assert "Available: /v1/chat/completions" in refusal(endpoint=["x"])


# -- values of options


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("on_null", "drop", """on_null must be "skip", "render" or "raise", got 'drop'"""),
        ("on_null", ["skip"], "on_null must be"),
        (
            "progress",
            "bar",
            "progress must be True, False, or None (progress in terminals and notebooks only), got 'bar'",
        ),
        ("limits", {"max_requests": 1}, "limits must be a bf.Limits(...), such as"),
        ("poll_seconds", -1, "poll_seconds must be a number of seconds, 0 or more, got -1"),
        ("poll_seconds", "5", "got '5'"),
        ("poll_seconds", True, "got True"),
        ("settle_seconds", float("nan"), "settle_seconds must be a number of seconds, 0 or more, got nan"),
        ("timeout_seconds", float("inf"), "timeout_seconds must be"),
        ("custom_id", 3, "custom_id must be text, got 3"),
        ("name", 3, "name must be text, got 3"),
        ("prefix", 3, "prefix must be text, got 3"),
        ("completion_window", 24, "completion_window must be text, got 24"),
        ("run_dir", 3, "run_dir must be the path of a folder, got 3"),
        ("extra_body", [1], "extra_body must be a dict of parameters, got [1]"),
        ("extra_body", {1: 2}, "extra_body must be a dict of parameters, got {1: 2}"),
        ("expires_after", 1.5, "expires_after must be a whole number of seconds from 3600"),
        ("expires_after", True, "got True"),
        ("expires_after", 3599, "got 3599"),
        ("expires_after", 2_592_001, "to 2592000 (30 days), got 2592001"),
        ("include", 5, """include must be a list of names, such as ["model", "raw"], got 5"""),
        (
            "include",
            ["modell"],
            "include has no column 'modell'. Did you mean 'model'? Available: model, request_id, batch_id",
        ),
        ("include", ["model", ["raw"]], "include has no column ['raw']"),
        ("include", "cost", "include='cost' is not available in this version of batchframe. Available: model"),
        ("metadata", {"a": 1}, "metadata must be a dict of text to text, got {'a': 1}"),
        ("metadata", "a", "metadata must be a dict of text to text, got 'a'"),
        ("metadata", {str(key): "" for key in range(13)}, "metadata must have at most 9 pairs"),
        ("metadata", {"k" * 65: ""}, "keys up to 64 and"),
        ("metadata", {"k": "v" * 513}, "values up to 512 characters"),
        ("metadata", {"batchframe_run": "x"}, "metadata keys that start with batchframe_ are reserved"),
    ],
)
def test_invalid_option_values(option, value, message):
    assert message in refusal(**{option: value})


def test_values_at_their_limits():
    metadata = {"k" * 64: "v" * 512} | {str(key): "" for key in range(8)}
    given = {"metadata": metadata, "expires_after": 3600, "poll_seconds": 0, "include": ("raw", "model", "raw")}
    parsed = _options.parse({"model": "m", **given})
    assert (parsed.metadata, parsed.expires_after, parsed.poll_seconds) == (metadata, 3600, 0)
    assert parsed.include == ("model", "raw")  # once each, in the order of the table
    assert _options.parse({"model": "m", "include": "raw"}).include == ("raw",)


# -- the body


def test_argument_order_does_not_change_the_request():
    one = bf.requests(FRAME, "{x}", model="m", temperature=0, seed=1, extra_body={"b": 1, "a": 2})
    other = bf.requests(FRAME, "{x}", extra_body={"a": 2, "b": 1}, seed=1, temperature=0, model="m")
    assert one.equals(other)


def test_extra_body():
    body = parameters(temperature=0, extra_body={"temperature": 1, "metadata": {"a": "b"}, "new": None, "n": 1})
    assert body == {"temperature": 1, "metadata": {"a": "b"}, "new": None, "n": 1}
    assert refusal(extra_body={"model": "x"}).startswith(
        "extra_body contains model, which comes from the model argument"
    )
    assert refusal(extra_body={"messages": []}).startswith(
        "extra_body contains messages, which comes from the prompt argument"
    )
    for body in (
        {"stream": True},
        {"background": False, "stream": True},
        {"stream_options": {}},
        {"stream": pl.col("n")},
    ):
        assert "which a batch does not support: leave it out" in refusal(extra_body=body)
    assert parameters(extra_body={"stream": False}) == {"stream": False}


def test_parameters_are_not_templates():
    with pytest.raises(bf.TemplateError, match=r"(?s)user is not a template, but contains \{n\}: .*pl.lit\('user-'\)"):
        bodies(user="user-{n}")
    for value in ("{m}", "{{n}}", "{"):
        assert parameters(user=value) == {"user": value}
    assert parameters(extra_body={"user": "{n}"}) == {"user": "{n}"}


def test_none_and_null_leave_a_parameter_out():
    assert parameters(temperature=None, seed=1) == {"seed": 1}
    assert [body.get("seed", "out") for body in bodies(seed=pl.col("n"))] == [1, "out"]
    assert [body.get("seed", "out") for body in bodies(seed=pl.lit(None))] == ["out", "out"]


@pytest.mark.parametrize("count", [0, 1.0, True, "1", pl.col("n"), pl.lit(1)], ids=str)
def test_parameters_that_decide_a_dtype_are_one_number(count):
    assert "one positive integer for all rows, because it makes the response a List" in refusal(n=count)
    message = refusal(dimensions=count, endpoint="/v1/embeddings")
    assert "one positive integer for all rows, because it makes the response an Array of this length" in message
    assert parameters(n=1) == {"n": 1}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    ],
)
def test_response_format_of_the_service_is_sent_unchanged(value):
    assert parameters(response_format=value) == {"response_format": value}


def test_response_format_of_the_service_at_both_endpoints():
    inner = {"name": "x", "schema": {"type": "object"}, "strict": False}
    nested, flat = {"type": "json_schema", "json_schema": inner}, {"type": "json_schema", **inner}
    for form in (nested, flat):
        assert parameters(response_format=form) == {"response_format": nested}
        (body, _) = bodies(response_format=form, endpoint="/v1/responses")
        assert body["text"] == {"format": flat}


def test_response_format_is_passed_once():
    form = {"type": "json_object"}
    assert parameters(extra_body={"response_format": form}) == {"response_format": form}
    for value in (form, pl.Struct({"a": pl.Int64})):
        message = refusal(response_format=value, extra_body={"response_format": form})
        assert message == "response_format is passed both as an option and in extra_body: leave one of them out"


@pytest.mark.parametrize(
    "value", [dict, "json_object", {"type": "xml"}, [{"type": "object"}], {"a": pl.Int64}, pl.Struct, ()], ids=str
)
def test_invalid_response_formats(value):
    assert refusal(response_format=value).startswith("response_format")


def test_response_format_as_a_type_becomes_a_strict_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    strict = {"name": "response", "strict": True, "schema": schema | {"additionalProperties": False}}
    for value in (pl.Struct({"a": pl.Int64}), pl.Schema({"a": pl.Int64}), schema):
        assert parameters(response_format=value) == {"response_format": {"type": "json_schema", "json_schema": strict}}


class Colour(str, enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "another"


class Scalar:
    """As numpy's: registered as a number, and no Python number itself."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value

    def __float__(self):
        return float(self.value)

    def __lt__(self, other):
        return self.value < other


class Whole(Scalar):
    pass


class Fraction(Scalar):
    pass


class Flag:
    """As numpy's boolean, and its arrays of no dimension: registered as nothing."""

    def __init__(self, value):
        self.value, self.shape = value, ()

    def item(self):
        return self.value


numbers.Integral.register(Whole)
numbers.Real.register(Fraction)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, "true"),
        (10**30, "1" + "0" * 30),
        (0.1, "0.1"),
        (1e22, "1e22"),
        ((1, "a"), '[1,"a"]'),
        ({50256: -100}, '{"50256":-100}'),
        (Decimal("1.50"), "1.50"),
        (dt.date(2024, 1, 2), '"2024-01-02"'),
        (dt.datetime(2024, 1, 2, 3, tzinfo=dt.timezone.utc), '"2024-01-02T03:00:00Z"'),
        (dt.time(1, 2), '"01:02:00"'),
        (Colour.RED, '"red"'),
        (Text("a"), '"a"'),
        (Whole(3), "3"),
        (Fraction(3), "3.0"),
        ([Flag(value=True), Flag(value=False)], "[true,false]"),
        ({"é": [None, {"b": "\u2028"}]}, '{"é":[null,{"b":"\u2028"}]}'),
        ({}, "{}"),
    ],
)
def test_constant_values(value, sent):
    line = bf.requests(FRAME, "{x}", model="m", extra_body={"p": value})["request"][0]
    assert line.endswith(f'],"p":{sent}}}}}')


def test_a_run_keeps_constant_values_of_every_kind(client):
    run = bf.submit(
        FRAME, "{x}", model="gpt-4o-mini", client=client, poll_seconds=0.05, temperature=Fraction(0), seed=Whole(3),
        logit_bias={50256: Whole(-100)}, user=Colour.RED, top_p=Decimal("0.50"), stop=(Text("a"), "b"),
    )  # fmt: skip
    assert run.wait().succeeded == 2


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "temperature contains nan, which JSON cannot represent"),
        (float("inf"), "temperature contains inf, which JSON cannot represent"),
        (Decimal("NaN"), "temperature contains Decimal('NaN'), which JSON cannot represent"),
        ({"a": [1, float("nan")]}, "temperature['a'][1] contains nan"),
        (Fraction(float("inf")), "which JSON cannot represent"),
        (b"x", "temperature contains bytes, which JSON cannot represent: encode them first, as base64 say"),
        ([bytearray(b"x")], "temperature[0] contains bytes"),
        ({1, 2}, "temperature contains set, which cannot be written as JSON: pass dicts, lists, text and numbers"),
        (dt.timedelta(1), "temperature contains timedelta"),
        (object(), "temperature contains object"),
        (1j, "temperature contains complex"),
        (
            pl.Series([1, 2]),
            "temperature contains Series, which cannot be written as JSON: for one value per row pass an expression",
        ),
        (Flag(b"x"), "temperature contains Flag, which cannot be written as JSON: pass dicts"),
        (
            [Flag],
            "temperature[0] is a class: pass a value; openai.pydantic_function_tool(…) makes a tool",
        ),
        (lambda: 1, "temperature contains function"),
        (
            {"a": pl.col("x")},
            "temperature['a'] contains an expression inside a value: make the whole value an expression",
        ),
        ([pl.col("x")], "temperature[0] contains an expression inside a value"),
        (Decimal("Infinity"), "temperature contains Decimal('Infinity')"),
        ({1.5: 2}, "temperature has the key 1.5"),
        ({None: 1}, "temperature has the key None, but keys in JSON must be text"),
        ({"a": {True: 1}}, "temperature['a'] has the key True"),
        (LOOP, "temperature cannot be written as JSON: it is nested too deeply, or contains itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_values_without_json(value, message):
    assert message in refusal(temperature=value)


def test_a_bad_expression_names_the_parameter_and_the_columns():
    with pytest.raises(
        bf.TemplateError, match=r"the expression for seed does not fit the frame: .*nope.* Columns: 'x', 'n'"
    ):
        bodies(seed=pl.col("nope"))


# -- clashes with columns of the frame


def test_added_columns_must_not_clash():
    frame = pl.DataFrame({"x": ["a"], "response": ["b"], "b_usage": [1], "model": [1]})
    with pytest.raises(bf.InputError, match=r"the frame has a column 'response' already, .* pass prefix=\"batch_\""):
        bf.requests(frame, "{x}", model="m")
    with pytest.raises(bf.InputError, match=r"'b_usage' already"):
        bf.requests(frame, "{x}", model="m", prefix="b_")
    schema = bf.result_schema(frame, "{x}", model="m", prefix="c_", include=["model", "raw"])
    assert schema.names()[4:] == [
        "c_custom_id",
        "c_response",
        "c_finish_reason",
        "c_usage",
        "c_error",
        "c_model",
        "c_raw",
    ]
    with pytest.raises(bf.InputError, match=r"'model' already"):
        bf.requests(frame.drop("response"), "{x}", model="m", include="model")
    assert bf.requests(frame.drop("response"), "{x}", model="m").height == 1  # not requested: no clash


def test_the_id_column_may_be_called_custom_id():
    frame = pl.DataFrame({"x": ["a", "b"], "custom_id": ["p", "q"]})
    assert bf.requests(frame, "{x}", model="m", custom_id="custom_id")["custom_id"].to_list() == ["p", "q"]
    assert bf.result_schema(frame, "{x}", model="m", custom_id="custom_id").names().count("custom_id") == 1
    with pytest.raises(bf.InputError, match="'custom_id' already"):
        bf.requests(frame, "{x}", model="m")
    with pytest.raises(bf.InputError, match="'custom_id' already"):  # the added column is text
        bf.requests(frame.with_columns(custom_id=pl.lit(1)), "{x}", model="m", custom_id="custom_id")
