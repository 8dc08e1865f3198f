"""Templates: fields, literal text, and errors whose advice works."""

from __future__ import annotations

import datetime as dt
import json
import warnings

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import batchframe as bf
from batchframe._requests.template import Field, parse


def contents(frame, prompt, **options):
    rows = bf.requests(frame, prompt, model="m", **options)
    return [line and json.loads(line)["body"]["messages"][-1]["content"] for line in rows["request"]]


def refusal(frame, prompt):
    with pytest.raises(bf.TemplateError) as caught:
        bf.requests(frame, prompt, model="m")
    return str(caught.value)


FRAME = pl.DataFrame({
    "text": ["good"],
    "a.b": ["dotted"],
    "a": [{"b": "inner", "c": {"d": 1}, "c.d": 2, "x.y": {"z": 3}}],
    "with space": ["space"],
    "a:b": ["colon"],
    "a!r": ["bang"],
    "price": [1234.5],
    "day": [dt.date(2024, 7, 1)],
    "*": ["star"],
    "^.*$": ["pattern"],
    "": ["nameless"],
    "ünï 😀": ["unicode"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{text}", "good"),
        ("{text}{text}", "goodgood"),
        ("{a.b}", "dotted"),
        ("{a.c.d}", "2"),  # the longest name wins, in a struct too
        ("{a.x.y.z}", "3"),
        ("{a.c}", '{"d":1}'),
        ("{with space}", "space"),
        ("{a:b}", "colon"),
        ("{a!r}", "bang"),
        ("{*} {^.*$}", "star pattern"),
        ("{}", "nameless"),
        ("{ünï 😀}", "unicode"),
        ("{{{text}}}", "{good}"),
        ("{{text}} {text}", "{text} good"),
        ('{{"a": "{text}", "b": {{"c": 1}}}}', '{"a": "good", "b": {"c": 1}}'),
        ("{{{{}}}}{text}", "{{}}good"),
        ("\n{text}\r\n", "\ngood\r\n"),
    ],
)
def test_template_is_rendered(template, text):
    assert contents(FRAME, template) == [text]
    assert contents(FRAME.lazy(), template) == [text]


def test_braces_in_cells_are_literal():
    frame = pl.DataFrame({"x": ["{y}", "{{", "}", '{"a": 1}'], "y": "no"})
    assert contents(frame, "{x}") == ["{y}", "{{", "}", '{"a": 1}']


def test_field_of_null_struct_is_null():
    frame = pl.DataFrame({"s": [{"a": 1}, {"a": None}, None]})
    assert contents(frame, "{s.a}") == ["1", None, None]
    assert contents(frame, "{s.a}", on_null="render") == ["1", "", ""]


@given(st.lists(st.text() | st.sampled_from(["{", "}", "{{", "}}", "{x}"]), max_size=6))
@settings(deadline=None)
def test_doubled_braces_are_literal(pieces):
    text = "".join(pieces).encode("utf-8", "replace").decode()
    doubled = text.replace("{", "{{").replace("}", "}}")
    parsed = parse(doubled + "{x}" + doubled, {"x": pl.String()})
    pieces = [piece.name if isinstance(piece, Field) else piece for piece in parsed]
    assert pieces == ([text, "x", text] if text else ["x"])


# -- unknown columns


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("Judge {reviw}", "system names {reviw}, but the frame has no such column. Did you mean 'review'?"),
        ('Answer {"a": 1}', "system has a brace at character 7"),
        ("Judge {review:>3}", "system has a format spec"),
        ("Judge {review.x}", "system names {review.x}; 'review' is String, not a Struct"),
        ("Judge \ud800", "system contains"),
    ],
)
def test_system_template_error_names_system(system, message):
    with pytest.raises(bf.TemplateError) as caught:
        bf.requests(pl.DataFrame({"review": ["a"]}), "{review}", model="m", system=system)
    assert str(caught.value).startswith(message)


def test_unknown_column_error_suggests_and_lists_columns():
    message = refusal(pl.DataFrame({"review": ["a"], "stars": [1]}), "Judge {reviw}")
    assert "the prompt names {reviw}" in message
    assert "Did you mean 'review'?" in message
    assert "Columns: 'review', 'stars'" in message
    assert "{{reviw}}" in message


def test_unknown_column_error_with_no_and_many_columns():
    assert "Columns: none" in refusal(pl.DataFrame(), "{x}")
    message = refusal(pl.DataFrame({f"c{number}": [1] for number in range(100)}), "{x}")
    assert "'c29', …" in message
    assert "'c30'" not in message


def test_spaces_in_braces_belong_to_the_column_name():
    assert "Did you mean 'text'?" in refusal(FRAME, "{ text }")


def test_unknown_struct_field():
    frame = pl.DataFrame({"person": [{"name": "Ada", "home": {"city": "x"}}], "n": [1]})
    assert refusal(frame, "{person.nam}") == (
        "the prompt names {person.nam}; 'person' is a Struct with fields 'name', 'home'. Did you mean 'name'?"
    )
    assert "'person.home' is a Struct with fields 'city'" in refusal(frame, "{person.home.street}")
    assert refusal(frame, "{n.x}") == "the prompt names {n.x}; 'n' is Int64, not a Struct"
    assert "'person.name' is String, not a Struct" in refusal(frame, "{person.name.first}")


# -- stray braces


def corrected(message):
    """Return the template that the error gives."""
    advice = "so that it reads\n"
    assert advice in message
    return message.split(advice, 1)[1]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('Answer as {"label": "x"}: {text}', 'Answer as {"label": "x"}: good'),
        ('{"text": {text}}', '{"text": good}'),
        ('{"a": {"b": {"c": "{text}"}}}', '{"a": {"b": {"c": "good"}}}'),
        ('{\n  "a": 1,\n  "b": [{"c": {}}]\n} {text}', '{\n  "a": 1,\n  "b": [{"c": {}}]\n} good'),
        ("{'a': 1} {text}", "{'a': 1} good"),
        ('["x", {"a": []}] {text}', '["x", {"a": []}] good'),
        ('{{"a": {"b": 1}}} {text}', '{"a": {"b": 1}} good'),  # partly doubled
        ('{{"done": 1}} {"not": 1} {text}', '{"done": 1} {"not": 1} good'),
        ("{text} {", "good {"),
        ("} {text}", "} good"),
        ("a { b {text} c } d", "a { b good c } d"),
        ("{text}}", "good}"),
        ("{ } {text}", "{ } good"),
    ],
)
def test_stray_brace_error_gives_a_working_template(template, text):
    frame = FRAME.drop("")
    message = refusal(frame, template)
    assert contents(frame, corrected(message)) == [text]


json_values = st.recursive(
    st.none() | st.integers() | st.text("ab {}\"'\\", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), json_values, min_size=1), st.sampled_from([None, 2]))
def test_pasted_json_error_doubles_its_braces(value, indent):
    pasted = json.dumps(value, indent=indent)
    # Two opening braces in a row occur only in JSON strings, and cannot be distinguished from a doubled brace.
    assume("{{" not in pasted and len(pasted) < 1900)
    message = refusal(pl.DataFrame({"x": ["cell"]}), pasted + " {x}")
    assert contents(pl.DataFrame({"x": ["cell"]}), corrected(message)) == [pasted + " cell"]


def test_stray_brace_error_gives_the_position():
    assert "a brace at character 3 that does not start a field: 'ab {\"x\": 1}'" in refusal(FRAME, 'ab {"x": 1}')


def test_empty_braces_are_refused():
    message = refusal(pl.DataFrame({"x": ["a"]}), "{} and {x}")
    assert "{} at character 0, without a column name: write one inside the braces" in message
    assert corrected(message) == "{{}} and {x}"


def test_long_template_is_shortened_in_error():
    message = refusal(FRAME, "x" * 5000 + '{"a": 1}' + "y" * 5000)
    assert '{{"a": 1}}' in message
    assert len(message) < 500


# -- format specs


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{price:.2f}", "1234.50"),
        ("{price:,.1f} EUR", "1,234.5 EUR"),
        ("{price:>8}|", "  1234.5|"),
        ("{price:'>8}|", "''1234.5|"),
        ("{text!r}", "'good'"),
        ("{text!r:>8}", "  'good'"),
        ("{day:%d.%m.%Y}", "01.07.2024"),
        (
            "{day:%d} of {text}, {{text}} {{}} {a.b} {a.c.d:03d} at {price:.0f}",
            "01 of good, {text} {} dotted 002 at 1234",
        ),
    ],
)
def test_format_spec_error_gives_an_equivalent_expression(template, text):
    message = refusal(FRAME, template)
    assert "format spec" in message
    expression = eval(message.split("such as\n", 1)[1], {"pl": pl})
    assert contents(FRAME, expression) == [text]


def test_format_spec_error_names_the_field():
    assert "the prompt has a format spec, {price:.2f}, which templates do not support" in refusal(
        FRAME, "{text} {price:.2f}"
    )


# -- a template without a field


def warned_at(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (warning,) = [warning for warning in caught if issubclass(warning.category, bf.BatchframeWarning)]
    return warning


@pytest.mark.parametrize("prompt", ["no field", "{{text}}", "", [{"role": "user", "content": "no field"}]], ids=str)
def test_constant_prompt_warns_at_the_callers_line(prompt):
    frame = pl.DataFrame({"x": ["a"]})
    for call in (
        lambda: bf.requests(frame, prompt, model="m"),
        lambda: frame.batch.requests(prompt, model="m"),
        lambda: frame.lazy().batch.requests(prompt, model="m"),
        lambda: bf.result_schema(frame, prompt, model="m"),
    ):
        warning = warned_at(call)
        assert "the prompt has no {column} field: every row will send" in str(warning.message)
        assert warning.filename == __file__
        assert warning.lineno == call.__code__.co_firstlineno


def test_run_warns_at_the_callers_line(client):
    frame = pl.DataFrame({"x": ["a"]})
    for call in (
        lambda: bf.run(frame, "no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: frame.batch.run("no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: frame.lazy().batch.run("no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: bf.submit(frame, "no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
    ):
        warning = warned_at(call)
        assert warning.filename == __file__
        assert warning.lineno == call.__code__.co_firstlineno


def test_column_name_as_prompt_is_refused():
    frame = pl.DataFrame({"review text": ["a"]})
    message = "the prompt is a column name, not a template: use '{review text}' or pl.col('review text')"
    assert refusal(frame, "review text") == message
    with pytest.raises(bf.TemplateError, match="is a column name"):
        bf.requests(frame, "review text", model="m", endpoint="/v1/moderations")
    assert contents(frame, "review text", system="{review text}") == ["review text"]  # the system message varies


def test_constant_prompt_with_varying_system_does_not_warn():
    frame = pl.DataFrame({"x": ["a"]})
    assert contents(frame, "Go", system="{x}") == ["Go"]  # warnings are errors here
    assert contents(frame, [{"role": "system", "content": "{x}"}, {"role": "user", "content": "Go"}]) == ["Go"]


# -- columns in doubled braces, as users of Jinja write them

REVIEWS = pl.DataFrame({"text": ["good", "bad"], "stars": [5, 1], "row": [{"n": 1}, {"n": 2}], "a b": ["x", "y"]})


@pytest.mark.parametrize(
    ("template", "corrected_template"),
    [
        ("{{text}}", "{text}"),
        ("Judge {{ text }}!", "Judge {text}!"),
        ("{{row.text}}", "{text}"),
        ("{{ review.text }}", "{text}"),
        ("{{ row['text'] }} {{ row[\"stars\"] }}", "{text} {stars}"),
        ("{{- text -}}", "{text}"),
        ("{{ text | trim }} {{text|upper|trim}}", "{text} {text}"),
        ("{{row.n}}", "{row.n}"),  # a struct field wins over a column
        ("{{a b}} {{ a b }}", "{a b} {a b}"),
        ('As {{"a": 1}}: {{ text }}', 'As {{"a": 1}}: {text}'),
        ("{{label}}: {{text}}", "{{label}}: {text}"),
        ("{{{{text}}}} {{text}}", "{{{{text}}}} {text}"),
        ("{{ text\n}}", "{text}"),
    ],
)
def test_doubled_column_error_gives_the_corrected_template(template, corrected_template):
    for frame in (REVIEWS, REVIEWS.lazy()):
        message = refusal(frame, template)
        assert message.startswith("the prompt has {{")
        assert "doubled braces are literal text, so every row sends the same text there" in message
        assert message.split("write single braces:\n", 1)[1] == corrected_template
    assert len({*contents(REVIEWS, corrected_template)}) == 2


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_doubled_column_is_refused_at_each_endpoint(endpoint):
    with pytest.raises(bf.TemplateError, match=r"For the column, write single braces:\n\{text\}"):
        bf.requests(REVIEWS, "{{ text }}", model="m", endpoint=endpoint)


@pytest.mark.parametrize(
    ("prompt", "options", "label", "corrected_template"),
    [
        ([{"role": "user", "content": "{{ text }}"}], {}, "message 0", "{text}"),
        ([{"role": "system", "content": "Go"}, {"role": "user", "content": "{{text}}"}], {}, "message 1", "{text}"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "{{text}}"}]}],
            {},
            "message 0, content[0].text",
            "{text}",
        ),
        ("Go", {"system": "Judge {{ text }}"}, "system", "Judge {text}"),
        (pl.col("text"), {"system": "Of {{ stars }} stars"}, "system", "Of {stars} stars"),
        ("{{ stars }}", {"images": pl.col("text")}, "the prompt", "{stars}"),
    ],
    ids=["message", "second message", "part", "system", "expression", "images"],
)
def test_doubled_column_without_other_fields_is_refused(prompt, options, label, corrected_template):
    with pytest.raises(bf.TemplateError) as caught:
        bf.requests(REVIEWS, prompt, model="m", **options)
    assert str(caught.value).startswith(f"{label} has {{{{")
    assert str(caught.value).split("write single braces:\n", 1)[1] == corrected_template


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("{stars}: {{ text }}", {}, "the prompt has {{ text }}: .* For the column, write {text}"),
        ("{text}", {"system": "Of {{text}}"}, "system has {{text}}: .* For the column, write {text}"),
        (
            [{"role": "user", "content": "{text}"}, {"role": "user", "content": "{{row.stars}}"}],
            {},
            "message 1 has {{row.stars}}: .* For the column, write {stars}",
        ),
    ],
    ids=["one template", "system", "messages"],
)
def test_doubled_column_beside_a_field_warns(prompt, options, message):
    with pytest.warns(bf.BatchframeWarning, match=message) as caught:
        bf.requests(REVIEWS, prompt, model="m", **options)
    (warning,) = caught
    assert warning.filename == __file__


def test_doubled_braces_without_a_column_are_literal():
    assert contents(REVIEWS, "{text} {{label}} {{ x.y }} {{}} {{ }}") == [
        f"{text} {{label}} {{ x.y }} {{}} {{ }}" for text in ("good", "bad")
    ]
    assert contents(REVIEWS, "{{{text}}}") == ["{good}", "{bad}"]
    assert contents(REVIEWS, "{{text}} is {text}") == ["{text} is good", "{text} is bad"]


def test_doubled_column_error_shortens_a_long_template():
    message = refusal(REVIEWS, "x" * 5000 + "{{ text }}" + "y" * 5000)
    assert "xx{text}yy" in message
    assert len(message) < 500
