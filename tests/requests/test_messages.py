"""Messages: content as a list of parts, other keys, files, and conversations that continue."""

from __future__ import annotations

import base64
import json
import typing

import polars as pl
import pytest
from openai.types.responses import response_input_item_param

import batchframe as bf
from batchframe._api import options as _options
from batchframe._endpoints.registry import ENDPOINTS
from batchframe._requests.renderer import compile_prompt

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PDF = b"%PDF-1.7 \n"
PDF_URL = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
FRAME = pl.DataFrame({
    "t": ["a", 'b"', "c"],
    "url": ["https://x/1.png", None, "https://x/3.png"],
    "id": ["f1", "f2", "f3"],
    "pdf": [PDF, None, b"no"],
})  # fmt: skip


def messages(frame, prompt, **options):
    """Return the messages of each row, or its error code and message. Eager and lazy frames must agree."""
    results = []
    for source in (frame, frame.lazy()):
        parsed = _options.parse({"model": "m", **options})
        rows = pl.concat(compile_prompt(source, parsed.request_spec(prompt), 10_000_000).slices())
        bodies = [line and json.loads(line)["body"] for line in rows["batchframe:line"]]
        contents = [body and body.get("messages", body.get("input")) for body in bodies]
        errors = zip(rows["batchframe:code"], rows["batchframe:message"], strict=True)
        results.append([error if body is None else body for body, error in zip(contents, errors, strict=True)])
    assert results[0] == results[1]
    return results[0]


def contents(frame, *parts, **options):
    prompt = [{"role": "user", "content": list(parts)}]
    return [row[0]["content"] if isinstance(row, list) else row for row in messages(frame, prompt, **options)]


def refusal(prompt, **options):
    with pytest.raises(bf.BatchframeError) as caught:
        bf.requests(FRAME, prompt, model="m", **options)
    return str(caught.value)


def text(words, kind="text"):
    return {"type": kind, "text": words}


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


# -- parts


def test_parts_with_templates_expressions_and_constants():
    parts = (
        text("say {t} {{t}}"),
        text(pl.col("t").str.to_uppercase()),
        {"type": "image_url", "image_url": {"url": pl.col("url").fill_null("https://{t}"), "detail": "low"}},
        {"type": "file", "file": {"file_id": pl.col("id")}},
    )
    assert contents(FRAME, *parts)[1] == [
        text('say b" {t}'),
        text('B"'),
        {"type": "image_url", "image_url": {"url": "https://{t}", "detail": "low"}},
        {"type": "file", "file": {"file_id": "f2"}},
    ]


def test_expressions_in_parts_see_the_whole_frame():
    found = contents(FRAME, text("{t}"), {"type": "file", "file": {"file_id": pl.col("id").reverse()}})
    assert [parts[1]["file"]["file_id"] for parts in found] == ["f3", "f2", "f1"]
    part = {"type": "file", "file": {"file_id": pl.col("nope")}}
    message = refusal([{"role": "user", "content": [part]}])
    assert message.startswith("the expression for message 0, content[0].file.file_id does not fit the frame: ")
    fewer = {"type": "file", "file": {"file_id": pl.col("id").head(2)}}
    assert "changes the number of rows" in refusal([{"role": "user", "content": [fewer]}])
    one = {"type": "file", "file": {"file_id": pl.lit("f")}}
    assert "one value for all rows" in refusal([{"role": "user", "content": [one]}])


def test_template_in_constant_leaf_is_refused_with_expression():
    message = refusal([{"role": "user", "content": [text("{t}"), image("https://x/{id}.png")]}])
    assert message.startswith(
        "message 0, content[1].image_url is not a template, but contains {id}: pass an expression instead"
    )
    assert message.endswith("\npl.concat_str(pl.lit('https://x/'), pl.col('id'), pl.lit('.png'))")
    mixed = {"type": "file", "file": {"file_id": pl.col("id"), "filename": "{id}"}}
    assert "content[0].file.filename is not a template" in refusal([{"role": "user", "content": [mixed]}])
    assert "message 0, name is not a template" in refusal([{"role": "user", "content": "{t}", "name": "{id}"}])
    for url in ("https://x/{nope}.png", "https://x/{{id}}.png"):
        assert contents(FRAME, text("{t}"), image(url))[0][1] == image(url)


def test_constant_parts_warn_like_a_constant_prompt():
    with pytest.warns(bf.BatchframeWarning, match="no {column} field"):
        assert contents(FRAME, text("a"), image("https://x")) == [[text("a"), image("https://x")]] * 3


def test_nulls_in_parts():
    null = ("null_input", "message 0, content[1].image_url.url is null")
    first = [text("a"), image("https://x/1.png")]
    parts = (text("{t}"), image(pl.col("url")))
    assert contents(FRAME, *parts) == [first, null, [text("c"), image("https://x/3.png")]]
    assert contents(FRAME, *parts, on_null="render")[1] == [text('b"')]
    rendered = contents(FRAME, text(pl.col("url")), image("https://x"), on_null="render")
    assert rendered[1] == [text(""), image("https://x")]
    prompt = [{"role": "user", "content": list(parts)}]
    assert refusal(prompt, on_null="raise").startswith("message 0, content[1].image_url.url is null in row 1")


def test_image_urls_in_parts_are_checked():
    frame = FRAME.with_columns(url=pl.lit("cat.png"))
    code, message = contents(frame, text("{t}"), image(pl.col("url")))[0]
    assert code == "invalid_input"
    assert message.startswith("message 0, content[1].image_url.url is 'cat.png': expected a URL")
    png = FRAME.with_columns(bytes=pl.lit(b"\x89PNG\r\n\x1a\n"))
    (part, _), *_ = contents(png, {"type": "input_image", "image_url": pl.col("bytes")}, text("{t}", "input_text"),
                             endpoint=RESPONSES)  # fmt: skip
    assert part == {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}


def test_images_are_appended_to_parts():
    found = contents(FRAME, text("{t}"), images="url")
    assert found[0] == [text("a"), image("https://x/1.png")]


@pytest.mark.parametrize(
    ("content", "endpoint", "message"),
    [
        ([], CHAT, "message 0 has no parts: its content is an empty list"),
        (["{t}"], CHAT, "message 0, content[0] must be a part of type text, image_url, input_audio, file, refusal at"),
        ([{"text": "{t}"}], CHAT, "got the type None"),
        ([image("https://x")], RESPONSES, "must be a part of type input_text, input_image, input_file, "),
        ([{"type": "text"}], CHAT, "message 0, content[0] needs a text (a template or an expression), got None"),
        ([text("{nope}")], CHAT, "the prompt names {nope}"),
        ([{"type": "file", "file": {"file_data": pl.col("pdf") + b"x", "x": b"y"}}], CHAT, "contains bytes"),
        ([{"type": "file", "file": {"file_id": pl.col("pdf")}}], CHAT, "file.file_id has dtype Binary"),
        ([image(pl.col("t").str.len_chars())], CHAT, "image_url.url has dtype UInt32; an image must be a URL"),
    ],
)
def test_invalid_parts_are_refused(content, endpoint, message):
    assert message in refusal([{"role": "user", "content": content}], endpoint=endpoint)


# -- files


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_file_bytes_must_be_pdf(endpoint):
    file = {"filename": "a.pdf", "file_data": pl.col("pdf")}
    part = {"type": "file", "file": file} if endpoint == CHAT else {"type": "input_file", **file}
    sent = {"filename": "a.pdf", "file_data": PDF_URL}
    first, null, bad = contents(FRAME, part, endpoint=endpoint)
    assert first == [{"type": "file", "file": sent} if endpoint == CHAT else {"type": "input_file", **sent}]
    assert null[0] == "null_input"
    assert bad[0] == "invalid_input"
    assert "file_data is not a PDF: for other file types, build the data URL yourself, such as pl.concat_str(" in bad[1]


def test_file_texts_are_sent_unchanged():
    part = {"type": "input_file", "filename": "{nope}", "file_data": pl.col("t"), "file_url": pl.col("url")}
    assert contents(FRAME.head(1), part, endpoint=RESPONSES) == [
        [{"type": "input_file", "filename": "{nope}", "file_data": "a", "file_url": "https://x/1.png"}]
    ]


def test_service_accepts_files(client):
    for endpoint in (CHAT, RESPONSES):
        file = {"filename": "a.pdf", "file_data": pl.col("pdf")}
        part = {"type": "file", "file": file} if endpoint == CHAT else {"type": "input_file", **file}
        question = text("What is {t}?", "text" if endpoint == CHAT else "input_text")
        out = bf.run(FRAME.head(1), [{"role": "user", "content": [question, part]}], model="gpt-4o-mini",
                     endpoint=endpoint, client=client, poll_seconds=0.05)  # fmt: skip
        assert out["error"].null_count() == 1


def test_service_refuses_file_without_name(client):
    part = {"type": "file", "file": {"file_data": pl.col("pdf")}}
    with pytest.warns(bf.BatchframeWarning):
        out = bf.run(FRAME.head(1), [{"role": "user", "content": [part]}], model="gpt-4o-mini", client=client,
                     poll_seconds=0.05)  # fmt: skip
    assert out["error"][0]["code"] == "missing_required_parameter"
    assert out["error"][0]["message"] == "Missing required parameter: 'messages[0].content[0].file.file_id'."


# -- other keys


def test_messages_with_other_keys():
    call = {"id": pl.col("id"), "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    prompt = [
        {"role": "user", "content": "{t}", "name": pl.col("url").str.slice(8, 1)},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": pl.col("t"), "tool_call_id": pl.col("id")},
    ]
    found = messages(FRAME, prompt)
    assert found[0] == [
        {"role": "user", "content": "a", "name": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "id": "f1"}]},
        {"role": "tool", "content": "a", "tool_call_id": "f1"},
    ]
    assert found[1][0] == {"role": "user", "content": 'b"'}  # a null omits its key
    null = FRAME.with_columns(id=pl.lit(None, pl.String))
    assert messages(null, prompt)[0] == ("null_input", "message 1, tool_calls[0].id is null")


CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


def test_responses_items_between_messages(client):
    question = {"role": "user", "content": "{t}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": pl.col("id")}
    found = messages(FRAME, [question, THOUGHT, CALL, output], endpoint=RESPONSES)
    assert found[2] == [{"role": "user", "content": "c"}, THOUGHT, CALL, {**output, "output": "f3"}]
    with_image = messages(FRAME, [question, CALL, {**output, "output": "3"}], endpoint=RESPONSES, images="url")
    assert [*map(len, with_image[0])] == [2, 4, 3]
    assert with_image[0][0]["content"][1]["type"] == "input_image"
    null = FRAME.with_columns(id=pl.lit(None, pl.String))
    assert messages(null, [question, CALL, output], endpoint=RESPONSES)[0] == (
        "null_input",
        "message 2, output is null",
    )
    out = bf.run(FRAME, [question, THOUGHT, CALL, output], model="gpt-5-mini", endpoint=RESPONSES, client=client,
                 poll_seconds=0.05)  # fmt: skip
    assert out["error"].null_count() == 3
    assert refusal([question, CALL]).startswith('message 1 must be {"role": …, "content": …}, got ')
    message = 'message 0 must be {"role": …, "content": …}, or an item {"type": "function_call_output", …}, got '
    assert refusal([{"type": "function_cal"}], endpoint=RESPONSES).startswith(message)


def test_responses_item_types_match_the_sdk():
    params = typing.get_args(response_input_item_param.ResponseInputItemParam)
    kinds = [typing.get_type_hints(param)["type"] for param in params]
    named = {text for kind in kinds for one in (kind, *typing.get_args(kind)) for text in typing.get_args(one)
             if isinstance(text, str)}  # fmt: skip
    assert named - {"message"} <= {*ENDPOINTS[RESPONSES].item_types}


def test_unknown_message_keys_are_refused():
    message = refusal([{"role": "tool", "content": "{t}", "tool_call": "x"}])
    assert message.startswith(
        "message 0 has the unknown key 'tool_call': a message of /v1/chat/completions may have role, content, name, "
    )
    assert message.endswith("Did you mean 'tool_calls'?")
    assert "a message of /v1/responses may have" in refusal(
        [{"role": "user", "content": "{t}", "name": "x"}], endpoint=RESPONSES
    )
    assert 'message 0 must be {"role": …, "content": …}' in refusal([{"role": "user", "name": "x"}])


# -- conversations


def test_conversation_continues_with_its_answers(client):
    for endpoint in (CHAT, RESPONSES):
        options = {"model": "gpt-4o-mini", "endpoint": endpoint, "client": client, "poll_seconds": 0.05}
        frame = pl.DataFrame({"chat": [[{"role": "user", "content": f"Is {word} good?"}] for word in ("tea", "rain")]})
        for turn in range(1, 4):
            frame = bf.run(frame, pl.col("chat"), name=f"{endpoint}", **options)
            assert frame["error"].null_count() == 2
            answer = pl.struct(role=pl.lit("assistant"), content=pl.col("response"))
            question = pl.struct(role=pl.lit("user"), content=pl.lit("Why?"))
            frame = frame.select(chat=pl.concat_list("chat", answer, question))
            assert frame["chat"].list.len().to_list() == [2 * turn + 1] * 2


def test_null_fields_of_conversation_parts_are_omitted(client):
    part = pl.Struct({
        "type": pl.String, "text": pl.String, "image_url": pl.String, "file_id": pl.String, "file_url": pl.String,
    })  # fmt: skip
    dtype = pl.List(pl.Struct({"role": pl.Enum(["user", "assistant"]), "content": pl.List(part)}))
    chat = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "https://x"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://x/a"}]},
    ]  # fmt: skip
    frame = pl.DataFrame({"chat": pl.Series([chat], dtype=dtype)})
    assert messages(frame, pl.col("chat"), endpoint=RESPONSES) == [chat]
    out = bf.run(frame, pl.col("chat"), model="gpt-4o-mini", endpoint=RESPONSES, client=client, poll_seconds=0.05)
    assert out["error"].null_count() == 1


def test_conversation_with_function_call_outputs(client):
    fields = dict.fromkeys(("role", "content", "type", "id", "call_id", "name", "arguments", "output"), pl.String)
    dtype = pl.List(pl.Struct({**fields, "summary": pl.List(pl.String)}))
    chat = [{"role": "user", "content": "Is it cold?"}, THOUGHT, CALL,
            {"type": "function_call_output", "call_id": "c1", "output": "-3"}]  # fmt: skip
    odd = [{"type": "weather", "content": "-3"}]
    frame = pl.DataFrame({"chat": pl.Series([chat, odd, [None]], dtype=dtype)})
    found = messages(frame, pl.col("chat"), endpoint=RESPONSES)
    assert found[0] == chat
    assert (
        found[1] == found[2] == ("invalid_input", "a message's role is not one of system, developer, user, assistant")
    )
    (first_of_chat, *_) = messages(frame, pl.col("chat"))  # chat has no items
    assert first_of_chat == ("null_input", "a message's content is null")
    pictures = messages(frame.with_columns(url=pl.lit("https://x")), pl.col("chat"), endpoint=RESPONSES, images="url")
    assert pictures[0] == (
        "invalid_input",
        "images are added to the last message of a conversation, and its role is not 'user'",
    )
    with pytest.warns(bf.BatchframeWarning, match="2 of 3 rows did not succeed"):
        out = bf.run(frame, pl.col("chat"), model="gpt-5-mini", endpoint=RESPONSES, client=client, poll_seconds=0.05)
    assert out["error"].is_null().to_list() == [True, False, False]


def test_long_conversation():
    chat = [{"role": ("user", "assistant")[number % 2], "content": f"{number}"} for number in range(2_001)]
    frame = pl.DataFrame({"chat": [chat, chat[:1]], "url": ["https://x", "https://x"]})
    assert messages(frame, pl.col("chat")) == [chat, chat[:1]]
    found = messages(frame, pl.col("chat"), images="url")
    assert found[0][:-1] == chat[:-1]
    assert found[0][-1]["content"] == [text("2000"), image("https://x")]
