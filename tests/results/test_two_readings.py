"""The fast path for valid result lines gives the same answers as the slow path, which reads lines of any shape."""

# ruff: noqa: E501  (a table reads best a case a line)

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchframe._endpoints.registry import ENDPOINTS
from batchframe._endpoints.usage import SPELLINGS, tokens_of
from batchframe._results import extra_columns
from batchframe._results.answer_format import AnswerFormat
from batchframe._results.extra_columns import columns_of_lines
from batchframe._results.result_lines import body_of_line, read_answers, read_any

CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/responses",
)
NAMES = sorted({name for spellings in SPELLINGS.values() for path in spellings for name in path})
COUNTS = st.sampled_from([0, 7, 3.0, 3.5, -1, 2**70, -(2**63), None, "5", True, {}, [], float("nan")])
ODD = st.sampled_from([None, 0, 1.5, True, "", "text", "\ud83d", [], {}, [1], {"a": 1}, float("inf")])
DETAILS = st.dictionaries(st.sampled_from(NAMES), COUNTS, max_size=4)
USAGES = (
    st.dictionaries(st.sampled_from(NAMES), COUNTS | DETAILS, max_size=8)
    | st.fixed_dictionaries({"prompt_tokens": COUNTS, "prompt_tokens_details": DETAILS, "completion_tokens": COUNTS})
    | st.fixed_dictionaries({"input_tokens": COUNTS, "input_tokens_details": DETAILS, "output_tokens": COUNTS})
    | ODD
)
TEXTS = st.sampled_from(["hi", "", "caf\u00e9 \u2028", "\ud83d", '{"a": NaN}', "a\tb\\u0041"])


def some(**members):
    """Return a strategy of objects with some of these members, in any order, and with unused members."""
    known = st.fixed_dictionaries({}, optional=members)
    both = st.tuples(known, st.dictionaries(st.sampled_from(["x", "index2", "Text"]), ODD, max_size=2))
    return both.map(lambda pair: pair[1] | pair[0]).flatmap(
        lambda members: st.permutations(list(members.items())).map(dict)
    )


def often(usual, odd=ODD):
    return st.one_of(usual, usual, usual, odd)


PARTS = some(
    type=often(st.sampled_from(["text", "output_text", "thinking", "refusal"])), text=often(TEXTS), refusal=TEXTS
)
CONTENTS = often(TEXTS, st.lists(PARTS | ODD, max_size=3) | ODD)
MESSAGES = some(role=st.just("assistant"), content=CONTENTS, refusal=TEXTS | ODD, tool_calls=ODD)
CHOICES = some(index=st.sampled_from([0, 1, -1, 1.0, "0", None]), message=often(MESSAGES), text=often(TEXTS),
               finish_reason=often(st.sampled_from(["stop", "length"])), logprobs=ODD)  # fmt: skip
ITEMS = some(type=often(st.sampled_from(["message", "reasoning", "function_call"])), content=often(st.lists(PARTS, max_size=3), CONTENTS),
             phase=st.sampled_from(["commentary", "final_answer", None]), status=ODD)  # fmt: skip
VECTORS = often(st.lists(st.floats(width=32), max_size=3) | st.just("AACAPw=="))
SCORES = st.dictionaries(st.sampled_from(["hate", "violence"]), st.floats() | ODD, max_size=2)
BODIES = {
    CHAT: some(choices=often(st.lists(CHOICES | ODD, max_size=3)), usage=USAGES, model=often(TEXTS), error=ODD),
    RESPONSES: some(output=often(st.lists(ITEMS | ODD, max_size=3)), usage=USAGES, model=often(TEXTS), error=st.none() | ODD,
                    status=often(st.just("completed"), st.sampled_from(["incomplete", "failed", None])),
                    incomplete_details=st.none() | some(reason=st.just("max_output_tokens"))),
    EMBEDDINGS: some(data=often(st.lists(some(embedding=VECTORS), max_size=2)), usage=USAGES),
    COMPLETIONS: some(choices=often(st.lists(CHOICES | ODD, max_size=3)), usage=USAGES, model=TEXTS),
    MODERATIONS: some(results=often(st.lists(some(flagged=often(st.booleans()), category_scores=SCORES), max_size=2))),
}  # fmt: skip


def lines(endpoint):
    status = st.sampled_from([200, 200, 200, 201, 200.0, 0, 429, True, "200", None])
    responses = some(status_code=status, request_id=often(TEXTS), body=often(BODIES[endpoint]))
    lines = some(custom_id=st.just("x"), response=often(responses), error=ODD)
    return st.tuples(lines, st.sampled_from(["", "twice", "deep", "spaced"])).map(lambda pair: encoded(*pair))


def encoded(line, twist):
    text = json.dumps({"custom_id": "x"} | line, separators=(", ", " : ") if twist == "spaced" else None)
    if twist == "deep":
        text = text[:-1] + ', "deep": ' + "[" * 2_000 + "]" * 2_000 + "}"
    if twist == "twice":  # the last of two equal keys counts
        text = '{"response": {"status_code": 500}, ' + text[1:]
    return text.encode()


GOOD = {
    CHAT: {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}},
    RESPONSES: {"status": "completed", "usage": {"input_tokens": 1},
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}]},
}  # fmt: skip


def test_valid_lines_take_the_fast_path(monkeypatch):
    def never(*_, **__):
        pytest.fail("a valid line took the slow path")

    monkeypatch.setattr("batchframe._results.result_lines.read_any", never)
    for path, body in GOOD.items():
        data = json.dumps({"custom_id": "x", "response": {"status_code": 200, "body": body}}).encode()
        (answers,) = read_answers(io.BytesIO(data), ENDPOINTS[path])
        assert (answers["response"].item(), answers["input_tokens"].item()) == ("hi", 1)


@pytest.mark.parametrize("path", BODIES)
@given(data=st.data())
def test_fast_path_matches_slow_path(path, data):
    line = data.draw(lines(path))
    custom_id, answer = read_any(line, ENDPOINTS[path])
    (answers,) = read_answers(io.BytesIO(line), ENDPOINTS[path])
    assert answers.row(0) == (custom_id, *answer)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@given(data=st.data())
def test_extra_columns_of_fast_path_match_slow_path(path, data):
    names, line = ["logprobs", "tool_calls", "content_filter", "raw"], data.draw(lines(path))
    fast = columns_of_lines([line], names, AnswerFormat(path))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(extra_columns, "_shallow_body_of_line", body_of_line)
        slow = columns_of_lines([line], names, AnswerFormat(path))
    for fast_column, slow_column in zip(fast, slow, strict=True):
        assert fast_column.equals(slow_column, null_equal=True)


BODY = {"choices": [{"index": 1, "message": {"content": "one"}}, {"index": 0, "message": {"content": "zero"}}]}


@pytest.mark.parametrize(
    "member",
    ['"x": 1e999', '"x": "\xff"', '"index": 1.0', '"x": NaN', '"x": "\t"', '"x": ' + "[" * 2_000 + "]" * 2_000],
)
def test_unused_field_does_not_affect_the_response(member):
    line = b'{"custom_id": "x", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "hi"}, %s}]}}}'
    line %= member.encode("latin-1")
    assert read_any(line)[1].response == "hi"
    (answers,) = read_answers(io.BytesIO(line))
    assert answers["response"].item() == "hi"


def test_choices_are_ordered_by_index():
    line = json.dumps({"custom_id": "x", "response": {"status_code": 200, "body": BODY}}).encode()
    (answers,) = read_answers(io.BytesIO(line))
    assert answers["response"].item() == read_any(line)[1].response == "zero"


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
SPELLED = {
    "floats": ({"prompt_tokens": 5.0, "completion_tokens": 7.0, "total_tokens": 12.0}, (5, 7, 12, None, None, None)),
    "openai": (
        USAGE | {"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 2}},
        (5, 7, 12, 3, 1, 2),
    ),
    "responses": (
        {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1},
         "output_tokens_details": {"reasoning_tokens": 2}},
        (5, 7, 12, 3, 1, 2),
    ),
    "deepseek": (USAGE | {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2}, (5, 7, 12, 3, None, None)),
    "moonshot": (USAGE | {"cached_tokens": 3}, (5, 7, 12, 3, None, None)),
    "anthropic": (
        {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 1},
        (5, 7, None, 3, 1, None),
    ),
    "gateway": (USAGE | {"prompt_tokens_details": {"cached_tokens": 3}, "cache_creation_input_tokens": 1}, (5, 7, 12, 3, 1, None)),
    "camel case": ({"promptTokens": 5, "completionTokens": 7, "totalTokens": 12}, (5, 7, 12, None, None, None)),
    "both": (USAGE | {"prompt_tokens_details": {"cached_tokens": 3}, "prompt_cache_hit_tokens": 9}, (5, 7, 12, 3, None, None)),
    "none": (None, (None,) * 6),
    "text": ("many", (None,) * 6),
}  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("case", SPELLED)
def test_usage_spellings_of_other_services(case, path):
    usage, counts = SPELLED[case]
    assert tuple(tokens_of(usage).values()) == counts
    line = json.dumps(
        {"custom_id": "x", "response": {"status_code": 200, "body": GOOD[path] | {"usage": usage}}}
    ).encode()
    (answers,) = read_answers(io.BytesIO(line), ENDPOINTS[path])
    assert answers.select(*SPELLINGS).row(0) == counts
    assert answers["response"].item() == "hi"
    assert answers.schema["cache_write_tokens"] == pl.Int64
