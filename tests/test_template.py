"""Templates: what is a field, what is text, and the errors, whose advice works."""

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
        ("{a.c.d}", "2"),  # the longest name first, below a struct too
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
def test_fields(template, text):
    assert contents(FRAME, template) == [text]
    assert contents(FRAME.lazy(), template) == [text]


def test_braces_of_cells_are_text():
    frame = pl.DataFrame({"x": ["{y}", "{{", "}", '{"a": 1}'], "y": "no"})
    assert contents(frame, "{x}") == ["{y}", "{{", "}", '{"a": 1}']


def test_a_null_struct_is_a_null_field():
    frame = pl.DataFrame({"s": [{"a": 1}, {"a": None}, None]})
    assert contents(frame, "{s.a}") == ["1", None, None]
    assert contents(frame, "{s.a}", on_null="render") == ["1", "", ""]


@given(st.lists(st.text() | st.sampled_from(["{", "}", "{{", "}}", "{x}"]), max_size=6))
@settings(deadline=None)
def test_any_text_with_its_braces_doubled_is_literal(pieces):
    text = "".join(pieces).encode("utf-8", "replace").decode()
    doubled = text.replace("{", "{{").replace("}", "}}")
    parsed = parse(doubled + "{x}" + doubled, {"x": pl.String()})
    pieces = [piece.name if isinstance(piece, Field) else piece for piece in parsed]
    assert pieces == ([text, "x", text] if text else ["x"])


# -- unknown columns


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("Judge {reviw}", "system names {reviw}, but the frame has no such column. Did you mean 'review'?"),
        ('Answer {"a": 1}', "system has a brace at character 7"),
        ("Judge {review:>3}", "system has a format spec"),
        ("Judge {review.x}", "system names {review.x}; 'review' is String, not a Struct"),
        ("Judge \ud800", "system contains"),
    ],
)
def test_an_error_of_the_system_template_says_that_it_is_there(system, said):
    with pytest.raises(bf.TemplateError) as caught:
        bf.requests(pl.DataFrame({"review": ["a"]}), "{review}", model="m", system=system)
    assert str(caught.value).startswith(said)


def test_an_unknown_column_is_refused_with_the_nearest_and_all_there_are():
    said = refusal(pl.DataFrame({"review": ["a"], "stars": [1]}), "Judge {reviw}")
    assert "the prompt names {reviw}" in said
    assert "Did you mean 'review'?" in said
    assert "Columns: 'review', 'stars'" in said
    assert "{{reviw}}" in said


def test_an_unknown_column_among_none_and_among_many():
    assert "Columns: none" in refusal(pl.DataFrame(), "{x}")
    said = refusal(pl.DataFrame({f"c{number}": [1] for number in range(100)}), "{x}")
    assert "'c29', …" in said
    assert "'c30'" not in said


def test_spaces_in_a_field_are_part_of_its_name():
    assert "Did you mean 'text'?" in refusal(FRAME, "{ text }")


def test_an_unknown_field_of_a_struct():
    frame = pl.DataFrame({"person": [{"name": "Ada", "home": {"city": "x"}}], "n": [1]})
    assert refusal(frame, "{person.nam}") == (
        "the prompt names {person.nam}; 'person' is a Struct with fields 'name', 'home'. Did you mean 'name'?"
    )
    assert "'person.home' is a Struct with fields 'city'" in refusal(frame, "{person.home.street}")
    assert refusal(frame, "{n.x}") == "the prompt names {n.x}; 'n' is Int64, not a Struct"
    assert "'person.name' is String, not a Struct" in refusal(frame, "{person.name.first}")


# -- braces that begin no field


def corrected(said):
    """The template that the error gives."""
    advice = "so that it reads\n"
    assert advice in said
    return said.split(advice, 1)[1]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('Answer as {"label": "x"}: {text}', 'Answer as {"label": "x"}: good'),
        ('{"text": {text}}', '{"text": good}'),
        ('{"a": {"b": {"c": "{text}"}}}', '{"a": {"b": {"c": "good"}}}'),
        ('{\n  "a": 1,\n  "b": [{"c": {}}]\n} {text}', '{\n  "a": 1,\n  "b": [{"c": {}}]\n} good'),
        ("{'a': 1} {text}", "{'a': 1} good"),
        ('["x", {"a": []}] {text}', '["x", {"a": []}] good'),
        ('{{"a": {"b": 1}}} {text}', '{"a": {"b": 1}} good'),  # doubled in part
        ('{{"done": 1}} {"not": 1} {text}', '{"done": 1} {"not": 1} good'),
        ("{text} {", "good {"),
        ("} {text}", "} good"),
        ("a { b {text} c } d", "a { b good c } d"),
        ("{text}}", "good}"),
        ("{ } {text}", "{ } good"),
    ],
)
def test_braces_that_begin_no_field_are_refused_with_a_template_that_works(template, text):
    frame = FRAME.drop("")
    said = refusal(frame, template)
    assert contents(frame, corrected(said)) == [text]


json_values = st.recursive(
    st.none() | st.integers() | st.text("ab {}\"'\\", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), json_values, min_size=1), st.sampled_from([None, 2]))
def test_pasted_json_is_given_back_with_its_braces_doubled(value, indent):
    pasted = json.dumps(value, indent=indent)
    # Two braces open together in the texts of JSON only; there they are not told from a doubled brace.
    assume("{{" not in pasted and len(pasted) < 1900)
    said = refusal(pl.DataFrame({"x": ["cell"]}), pasted + " {x}")
    assert contents(pl.DataFrame({"x": ["cell"]}), corrected(said)) == [pasted + " cell"]


def test_where_the_brace_is():
    assert "a brace at character 3 that does not start a field: 'ab {\"x\": 1}'" in refusal(FRAME, 'ab {"x": 1}')


def test_empty_braces_ask_for_a_name():
    said = refusal(pl.DataFrame({"x": ["a"]}), "{} and {x}")
    assert "{} at character 0, without a column name: write one inside the braces" in said
    assert corrected(said) == "{{}} and {x}"


def test_a_long_template_is_shown_in_part():
    said = refusal(FRAME, "x" * 5000 + '{"a": 1}' + "y" * 5000)
    assert '{{"a": 1}}' in said
    assert len(said) < 500


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
def test_format_specs_are_refused_with_an_expression_that_does_it(template, text):
    said = refusal(FRAME, template)
    assert "format spec" in said
    expression = eval(said.split("such as\n", 1)[1], {"pl": pl})
    assert contents(FRAME, expression) == [text]


def test_the_format_spec_that_is_meant_is_named():
    assert "the prompt has a format spec, {price:.2f}, which templates do not support" in refusal(
        FRAME, "{text} {price:.2f}"
    )


# -- a template without a field


def warned_at(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (one,) = [found for found in caught if issubclass(found.category, bf.BatchframeWarning)]
    return one


@pytest.mark.parametrize("prompt", ["no field", "{{text}}", "", [{"role": "user", "content": "no field"}]], ids=str)
def test_a_template_without_a_field_warns_at_the_line_of_the_caller(prompt):
    frame = pl.DataFrame({"x": ["a"]})
    for call in (
        lambda: bf.requests(frame, prompt, model="m"),
        lambda: frame.batch.requests(prompt, model="m"),
        lambda: frame.lazy().batch.requests(prompt, model="m"),
        lambda: bf.result_schema(frame, prompt, model="m"),
    ):
        one = warned_at(call)
        assert "the prompt has no {column} field: every row will send" in str(one.message)
        assert one.filename == __file__
        assert one.lineno == call.__code__.co_firstlineno


def test_run_warns_at_the_line_of_the_caller(client):
    frame = pl.DataFrame({"x": ["a"]})
    for call in (
        lambda: bf.run(frame, "no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: frame.batch.run("no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: frame.lazy().batch.run("no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
        lambda: bf.submit(frame, "no field", model="gpt-4o-mini", client=client, poll_seconds=0.05),
    ):
        one = warned_at(call)
        assert one.filename == __file__
        assert one.lineno == call.__code__.co_firstlineno


def test_the_name_of_a_column_is_no_prompt():
    frame = pl.DataFrame({"review text": ["a"]})
    said = "the prompt is a column name, not a template: use '{review text}' or pl.col('review text')"
    assert refusal(frame, "review text") == said
    with pytest.raises(bf.TemplateError, match="is a column name"):
        bf.requests(frame, "review text", model="m", endpoint="/v1/moderations")
    assert contents(frame, "review text", system="{review text}") == ["review text"]  # not the same for every row


def test_a_template_whose_system_message_varies_does_not_warn():
    frame = pl.DataFrame({"x": ["a"]})
    assert contents(frame, "Go", system="{x}") == ["Go"]  # warnings are errors here
    assert contents(frame, [{"role": "system", "content": "{x}"}, {"role": "user", "content": "Go"}]) == ["Go"]


# -- columns in doubled braces, as users of Jinja write them

REVIEWS = pl.DataFrame({"text": ["good", "bad"], "stars": [5, 1], "row": [{"n": 1}, {"n": 2}], "a b": ["x", "y"]})


@pytest.mark.parametrize(
    ("template", "mended"),
    [
        ("{{text}}", "{text}"),
        ("Judge {{ text }}!", "Judge {text}!"),
        ("{{row.text}}", "{text}"),
        ("{{ review.text }}", "{text}"),
        ("{{ row['text'] }} {{ row[\"stars\"] }}", "{text} {stars}"),
        ("{{- text -}}", "{text}"),
        ("{{ text | trim }} {{text|upper|trim}}", "{text} {text}"),
        ("{{row.n}}", "{row.n}"),  # a field of a struct before a column
        ("{{a b}} {{ a b }}", "{a b} {a b}"),
        ('As {{"a": 1}}: {{ text }}', 'As {{"a": 1}}: {text}'),
        ("{{label}}: {{text}}", "{{label}}: {text}"),
        ("{{{{text}}}} {{text}}", "{{{{text}}}} {text}"),
        ("{{ text\n}}", "{text}"),
    ],
)
def test_a_column_in_doubled_braces_is_refused_with_the_template_that_was_meant(template, mended):
    for frame in (REVIEWS, REVIEWS.lazy()):
        said = refusal(frame, template)
        assert said.startswith("the prompt has {{")
        assert "doubled braces are literal text, so every row sends the same text there" in said
        assert said.split("write single braces:\n", 1)[1] == mended
    assert len({*contents(REVIEWS, mended)}) == 2


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"])
def test_a_column_in_doubled_braces_is_refused_at_each_endpoint(endpoint):
    with pytest.raises(bf.TemplateError, match=r"For the column, write single braces:\n\{text\}"):
        bf.requests(REVIEWS, "{{ text }}", model="m", endpoint=endpoint)


@pytest.mark.parametrize(
    ("prompt", "options", "called", "mended"),
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
def test_a_column_in_doubled_braces_is_refused_wherever_no_template_has_a_field(prompt, options, called, mended):
    with pytest.raises(bf.TemplateError) as caught:
        bf.requests(REVIEWS, prompt, model="m", **options)
    assert str(caught.value).startswith(f"{called} has {{{{")
    assert str(caught.value).split("write single braces:\n", 1)[1] == mended


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
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
def test_a_column_in_doubled_braces_beside_a_field_is_warned_of(prompt, options, said):
    with pytest.warns(bf.BatchframeWarning, match=said) as caught:
        bf.requests(REVIEWS, prompt, model="m", **options)
    (one,) = caught
    assert one.filename == __file__


def test_doubled_braces_that_name_no_column_are_text():
    assert contents(REVIEWS, "{text} {{label}} {{ x.y }} {{}} {{ }}") == [
        f"{text} {{label}} {{ x.y }} {{}} {{ }}" for text in ("good", "bad")
    ]
    assert contents(REVIEWS, "{{{text}}}") == ["{good}", "{bad}"]
    assert contents(REVIEWS, "{{text}} is {text}") == ["{text} is good", "{text} is bad"]


def test_of_a_long_template_the_part_with_the_doubled_column_is_shown():
    said = refusal(REVIEWS, "x" * 5000 + "{{ text }}" + "y" * 5000)
    assert "xx{text}yy" in said
    assert len(said) < 500
