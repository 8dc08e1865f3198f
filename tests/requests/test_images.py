"""The option ``images``: columns of URLs and bytes become parts of a request, or the error of their row."""

from __future__ import annotations

import base64
import json

import polars as pl
import pyarrow.parquet as pq
import pytest

import batchframe as bf
from batchframe._api import options as _options
from batchframe._endpoints.token_estimate import estimated_tokens
from batchframe._requests import frame_source, media
from batchframe._requests.renderer import compile_prompt

CHAT, RESPONSES, MODERATIONS = "/v1/chat/completions", "/v1/responses", "/v1/moderations"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
JPEG, GIF, WEBP = b"\xff\xd8\xff\xe0 jpeg", b"GIF89a gif", b"RIFF\x10\x00\x00\x00WEBPVP8 "
WEB = "https://example.com/a.png"


def data_url(content, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def rendered(frame, prompt="{t}", **options):
    """Return the images of each row's last message, or its error code and message. Eager and lazy frames must agree."""
    results = []
    for source in (frame, frame.lazy()):
        parsed = _options.parse({"model": "m", **options})
        rows = pl.concat(compile_prompt(source, parsed.request_spec(prompt), 200_000_000).slices())
        codes = zip(rows["batchframe:line"], rows["batchframe:code"], rows["batchframe:message"], strict=True)
        results.append(
            [(code, message) if line is None else images(json.loads(line)["body"]) for line, code, message in codes]
        )
    assert results[0] == results[1]
    return results[0]


def images(body):
    content = body["messages"][-1]["content"] if "messages" in body else body["input"]
    if isinstance(content[0], dict) and "role" in content[0]:
        content = content[-1]["content"]
    found = [part["image_url"] for part in content if part["type"] in {"image_url", "input_image"}]
    return [image["url"] if isinstance(image, dict) else image for image in found]


def column(values, dtype=None):
    return pl.DataFrame({"t": [f"text {row}" for row in range(len(values))], "image": pl.Series(values, dtype=dtype)})


def refusal(frame, prompt="{t}", **options):
    with pytest.raises(bf.BatchframeError) as caught:
        bf.requests(frame, prompt, model="m", **options)
    return str(caught.value)


# -- parts


def content(prompt="{t}", **options):
    (line,) = bf.requests(column([WEB]), prompt, model="m", images="image", **options)["request"]
    body = json.loads(line)["body"]
    return body.get("messages", body.get("input"))


def test_image_parts_by_endpoint():
    text = {"type": "text", "text": "text 0"}
    chat = {"type": "image_url", "image_url": {"url": WEB}}
    assert content() == [{"role": "user", "content": [text, chat]}]
    assert content(endpoint=MODERATIONS) == [text, chat]
    detailed = {"type": "image_url", "image_url": {"url": WEB, "detail": "low"}}
    assert content(image_detail="low") == [{"role": "user", "content": [text, detailed]}]
    parts = [{"type": "input_text", "text": "text 0"}, {"type": "input_image", "image_url": WEB, "detail": "high"}]
    assert content(endpoint=RESPONSES, image_detail="high") == [{"role": "user", "content": parts}]


def test_images_are_added_to_the_last_user_message():
    prompt = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": "{t}"},
        {"role": "assistant", "content": "It is"},
    ]
    found = content(prompt, system="Look")
    assert [isinstance(message["content"], list) for message in found] == [False, False, False, True, False]
    assert "images are added to the last message with role 'user'" in refusal(
        column([WEB]), prompt[1:2], images="image"
    )


def test_empty_text_sends_the_image_alone():
    assert content("") == [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": WEB}}]}]
    frame = column([WEB, None])
    none = ("invalid_input", "the row has neither a text nor an image")
    assert rendered(frame, "", images="image", on_null="render") == [[WEB], none]


# -- what an image may be


@pytest.mark.parametrize(
    ("kind", "bytes_"), [("png", PNG), ("jpeg", JPEG), ("gif", GIF), ("gif", b"GIF87a"), ("webp", WEBP)]
)
def test_image_type_is_detected_by_signature(kind, bytes_):
    assert rendered(column([bytes_]), images="image") == [[data_url(bytes_, kind)]]


CONVERT = "convert it to PNG, JPEG, GIF or WEBP"


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (b"", "is empty: expected an image"),
        (b"hello", f"is not an image: {CONVERT}"),
        (b"\x89PN", f"is not an image: {CONVERT}"),
        (b"RIFF\x10\x00\x00\x00WAVE", f"is not an image: {CONVERT}"),
        (b"%PDF-1.7 ", f"is a PDF: {CONVERT}"),
        (b'<svg xmlns="', f"is SVG or other XML: {CONVERT}"),
        (b'<?xml version="1.0"?><svg', f"is SVG or other XML: {CONVERT}"),
        (b"<!DOCTYPE html>", f"is an HTML page: {CONVERT}"),
        (b"\x00\x00\x00\x18ftypheic", f"is HEIC: {CONVERT}"),
        (b"\x00\x00\x00\x18ftypavif", f"is AVIF: {CONVERT}"),
        (b"II*\x00 tiff", f"is TIFF: {CONVERT}"),
        (b"BM bitmap", f"is BMP: {CONVERT}"),
    ],
)
def test_other_bytes_fail_their_row(bytes_, message):
    bad = ("invalid_input", f"column 'image' {message}")
    assert rendered(column([PNG, bytes_, PNG]), images="image") == [[data_url(PNG)], bad, [data_url(PNG)]]
    listed = column([[PNG], [PNG, bytes_]])
    bad = ("invalid_input", f"an image of column 'image' {message}")
    assert rendered(listed, images="image", on_null="render") == [[data_url(PNG)], bad]


@pytest.mark.parametrize(
    "url",
    [
        WEB, "HTTPS://EXAMPLE.COM/A.PNG", "http://x/ä/图.jpg?a=b&c={d}#e", 'https://x/"quoted"', data_url(PNG),
        "data:image/JPEG;base64,aaaa", "data:image/png;name=a.png;base64,aaaa",
    ],
)  # fmt: skip
def test_valid_urls_are_sent(url):
    assert rendered(column([url]), images="image") == [[url]]
    assert rendered(column([url]), images="image", endpoint=MODERATIONS) == [[url]]


NO_URL = ": expected a URL (https://… or data:image/…;base64,…); read files into a Binary column"
NO_SPACE = ": expected https://host/… without whitespace; strip it, and write inner spaces as %20"
NO_IMAGE = f": expected data:image/…;base64,…; {CONVERT}"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("cats/1.jpg", f"is 'cats/1.jpg'{NO_URL}"),
        ("C:\\cat.jpg", f"is 'C:\\cat.jpg'{NO_URL}"),
        ("s3://bucket/cat.jpg", f"is 's3://bucket/cat.jpg'{NO_URL}"),
        ("https://", f"is 'https://'{NO_SPACE}"),
        ("x" * 100, f"is '{'x' * 60}…'{NO_URL}"),
        ("", "is an empty string: expected the URL of an image"),
        (" \n", "is an empty string: expected the URL of an image"),
        (" https://x/y", f"is ' https://x/y'{NO_SPACE}"),
        ("https://x/a b.png", f"is 'https://x/a b.png'{NO_SPACE}"),
        ("data:text/plain;base64,aaaa", f"is 'data:text/plain;base64,aaaa'{NO_IMAGE}"),
        ("data:image/svg+xml;base64,aaaa", f"is 'data:image/svg+xml;base64,aaaa'{NO_IMAGE}"),
        ("data:image/png,aaaa", f"is 'data:image/png,aaaa'{NO_IMAGE}"),
        ("data:image/png;base64,", f"is 'data:image/png;base64,'{NO_IMAGE}"),
        ("data:image/png;base64,aa\naa", f"is 'data:image/png;base64,aa\naa'{NO_IMAGE}"),
        (
            "/9j/4AAQ",
            "is '/9j/4AAQ': base64 without a prefix; prepend data:image/png;base64, with the type of the image",
        ),
    ],
)
def test_invalid_urls_fail_their_row(url, message):
    assert rendered(column([WEB, url]), images="image") == [[WEB], ("invalid_input", f"column 'image' {message}")]


@pytest.mark.parametrize("as_text", [False, True], ids=["bytes", "data URL"])
def test_too_large_image_fails_its_row(as_text, monkeypatch):
    monkeypatch.setattr(media, "MAX_IMAGE_BYTES", 30)
    fits, large = PNG[:30], PNG[:33]
    frame = column([data_url(fits), data_url(large)] if as_text else [fits, large])
    bad = ("invalid_input", "column 'image' has 33 bytes; an image may have at most 30: make it smaller")
    assert rendered(frame, images="image") == [[data_url(fits)], bad]


def test_image_of_30_megabytes_is_too_large():
    ((code, message),) = rendered(column([PNG + bytes(30_000_000)]), images="image")
    assert code == "invalid_input"
    assert "an image may have at most 20971520: make it smaller" in message


# -- columns


def test_null_images():
    frame = column([WEB, None])
    assert rendered(frame, images="image") == [[WEB], ("null_input", "column 'image' is null")]
    assert rendered(frame, images="image", on_null="render") == [[WEB], []]
    assert refusal(frame, images="image", on_null="raise") == (
        "column 'image' is null in row 1, and on_null is \"raise\""
    )
    assert rendered(frame, images=pl.col("image")) == [[WEB], ("null_input", "images is null")]
    assert rendered(column([None], pl.Null), images="image", on_null="render") == [[]]


@pytest.mark.parametrize("kind", [pl.String, pl.Binary])
def test_list_columns_of_images(kind):
    one, two = (WEB, "http://x/2") if kind == pl.String else (PNG, JPEG)
    first, second = (WEB, "http://x/2") if kind == pl.String else (data_url(PNG), data_url(JPEG, "jpeg"))
    frame = column([[two, one], [], None, [None, one], [one]], pl.List(kind))
    assert rendered(frame, images="image") == [
        [second, first],
        [],
        ("null_input", "column 'image' is null"),
        ("null_input", "an image of column 'image' is null"),
        [first],
    ]
    assert rendered(frame, images="image", on_null="render") == [[second, first], [], [], [first], [first]]
    assert "an image of column 'image' is null in row 3" in refusal(
        frame.filter(pl.col("image").is_not_null()).vstack(column([[None]], pl.List(kind))),
        images="image",
        on_null="raise",
    ).replace("row 2", "row 3")
    array = column([[one, two], None], pl.Array(kind, 2))
    assert rendered(array, images="image", on_null="render") == [[first, second], []]


def test_image_columns_keep_their_order():
    frame = column([PNG, None]).with_columns(
        url=pl.lit(WEB), many=pl.concat_list(pl.lit("http://1"), pl.lit("http://2"))
    )
    columns = ["many", "image", pl.col("url") + "?x"]
    many = ["http://1", "http://2"]
    assert rendered(frame, images=columns, on_null="render") == [
        [*many, data_url(PNG), f"{WEB}?x"],
        [*many, f"{WEB}?x"],
    ]
    assert rendered(frame, images=tuple(columns))[1] == ("null_input", "column 'image' is null")


@pytest.mark.parametrize("name", ["a.b", "*", "^a$", "with space", "{t}", "s.url"])
def test_image_column_names(name):
    frame = (
        pl.DataFrame({"t": ["x"], name: [WEB]}) if name != "s.url" else pl.DataFrame({"t": ["x"], "s": [{"url": WEB}]})
    )
    assert rendered(frame, images=name) == [[WEB]]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum([WEB])])
def test_urls_in_categorical_and_enum_columns(dtype):
    assert rendered(column([WEB], dtype), images="image") == [[WEB]]
    assert rendered(column([[WEB, WEB]], pl.List(dtype)), images="image") == [[WEB, WEB]]


def test_image_expressions_see_the_whole_frame():
    frame = column([WEB + str(row) for row in range(4)])
    assert rendered(frame, images=pl.col("image").reverse()) == [[WEB + str(row)] for row in (3, 2, 1, 0)]
    assert "does not fit the frame" in refusal(frame, images=pl.col("nope"))
    assert "changes the number of rows" in refusal(frame, images=pl.col("image").head(2))


def test_invalid_image_columns_are_refused():
    frame = column([1])
    assert refusal(frame, images="image") == (
        "column 'image' has dtype Int64; an image must be a URL (String) or bytes (Binary)"
    )
    assert refusal(frame, images="imge").startswith(
        "images names 'imge', but the frame has no such column. Did you mean 'image'?"
    )
    struct = column([{"bytes": PNG, "path": "a.png"}])
    assert refusal(struct, images="image").endswith("Use one of its fields: 'bytes', 'path'")
    assert rendered(struct, images="image.bytes") == [[data_url(PNG)]]
    assert "images must be the name of a column, an expression, or a list of these" in refusal(frame, images=3)
    assert "got None" in refusal(frame, images=["image", None])
    assert "pass images with images=" in refusal(column([PNG]), "{image}")


def test_invalid_image_options_are_refused():
    frame = column([WEB])
    for endpoint in ("/v1/embeddings", "/v1/completions"):
        message = refusal(frame, images="image", endpoint=endpoint)
        assert message.endswith("with images: /v1/chat/completions, /v1/responses, /v1/moderations")
    message = refusal(frame, images="image", image_detail="low", endpoint=MODERATIONS)
    assert message.endswith("with image_detail: /v1/chat/completions, /v1/responses")
    assert refusal(frame, images="image", image_detail="best") == (
        "image_detail must be one of 'low', 'high', 'auto', 'original', got 'best'"
    )
    assert "image_detail needs images: pass images too" in refusal(frame, image_detail="low")
    assert bf.requests(frame, "{t}", model="m", images=[]).equals(bf.requests(frame, "{t}", model="m"))


def test_image_count_limit_of_a_request():
    frame = column([[WEB] * 1_500, [WEB] * 1_501], pl.List(pl.String))
    results = rendered(frame, images="image")
    assert len(results[0]) == 1_500
    assert results[1] == ("invalid_input", "the row has 1501 images; a request may contain at most 1500")
    results = rendered(frame.with_columns(image=pl.col("image").list.head(2)), images="image", endpoint=MODERATIONS)
    assert results == [("invalid_input", "the row has 2 images; a request may contain at most 1")] * 2


def test_constant_prompt_with_images():
    frame = column([WEB, "http://x"])
    assert rendered(frame, "Describe it.", images="image") == [[WEB], ["http://x"]]  # without a warning
    assert "one value for all rows" in refusal(frame, "Describe it.", images=pl.lit(WEB))


def test_column_used_as_image_and_text():
    (line,) = bf.requests(column([WEB]), "{image} is", model="m", images="image")["request"]
    assert json.loads(line)["body"]["messages"][0]["content"][0]["text"] == f"{WEB} is"


# -- conversations


def test_images_are_added_to_the_last_conversation_message():
    def turn(role, text):
        return {"role": role, "content": text}

    chats = [[turn("user", "a")], [turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
             [turn("user", "a"), turn("assistant", "b")], [turn("user", "a"), turn("assistant", "b")]]  # fmt: skip
    frame = pl.DataFrame({"chat": chats, "image": [WEB, WEB, WEB, None]})
    for endpoint, text in ((CHAT, "text"), (RESPONSES, "input_text")):
        options = {"model": "m", "images": "image", "endpoint": endpoint, "on_null": "render"}
        lines = bf.requests(frame, pl.col("chat"), **options)["request"]
        bodies = [line and json.loads(line)["body"] for line in lines]
        found = [body and body.get("messages", body.get("input")) for body in bodies]
        assert [message["content"] for message in found[1][:2]] == ["a", "b"]
        assert found[0][0]["content"][0] == {"type": text, "text": "a"}
        assert found[1][2]["content"][0] == {"type": text, "text": "c"}
        assert images(bodies[0]) == images(bodies[1]) == [WEB]
        assert found[2] is None
        assert found[3] == chats[3]
    results = rendered(frame, pl.col("chat"), images="image")
    assert results[2] == (
        "invalid_input",
        "images are added to the last message of a conversation, and its role is not 'user'",
    )


def test_images_are_added_to_conversation_parts():
    part = pl.Struct({"type": pl.String, "text": pl.String})
    dtype = pl.List(pl.Struct({"role": pl.String, "content": pl.List(part)}))
    chats = [[{"role": "user", "content": [{"type": "text", "text": "a"}]}], [{"role": "user", "content": []}]]
    frame = pl.DataFrame({"chat": pl.Series(chats, dtype=dtype), "image": [PNG, PNG]})
    assert rendered(frame, pl.col("chat"), images="image") == [[data_url(PNG)]] * 2


# -- runs


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MODERATIONS])
def test_runs_with_images(endpoint, client):
    frame = column([PNG, PNG, b"no", None])
    model = "omni-moderation-latest" if endpoint == MODERATIONS else "gpt-4o-mini"
    options = {"model": model, "endpoint": endpoint, "client": client, "poll_seconds": 0.05, "images": "image"}
    with pytest.warns(bf.BatchframeWarning):
        out = bf.run(frame.lazy(), "What is it?", **options).collect()
    codes = out["error"].struct.field("code").to_list()
    assert codes == [None, None, "invalid_input", "null_input"]
    assert out["image"].equals(frame["image"])
    assert out["response"].null_count() == 2
    if endpoint != MODERATIONS:
        assert out["usage"].struct.field("input_tokens")[0] > 700


def test_large_rows_give_small_row_groups(client, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "SLICE_BYTES", 10_000)
    frame = column([PNG + bytes(2_000)] * 40)
    frame.write_parquet(tmp_path / "in.parquet")
    options = {"model": "gpt-4o-mini", "client": client, "poll_seconds": 0.05, "images": "image"}
    bf.run_parquet(tmp_path / "in.parquet", tmp_path / "out.parquet", "{t}?", **options)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select("t", "image").equals(frame)
    assert out["error"].null_count() == 40
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0).num_rows < 20


def test_equal_images_are_sent_once(client, emu):
    frame = column([PNG, JPEG, PNG]).drop("t")
    options = {"model": "gpt-4o-mini", "client": client, "poll_seconds": 0.05, "images": "image", "dedupe": True}
    out = bf.run(frame, "What is it?", **options)
    assert out["response"].null_count() == 0
    batch = client.batches.list().data[0]
    assert batch.request_counts.total == 2


def test_service_error_of_an_image_is_the_row_error(client):
    urls = ["data:image/png;base64,!!!!", "data:text/html;base64,aaaa", "cat.png", "data:image/png;base64,aaaa"]
    expected = (
        "Expected a base64-encoded data URL with an image MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU=')"
    )
    got = ["an invalid base64-encoded value", "unsupported MIME type 'text/html'", "a value without the 'data:' prefix"]
    for endpoint, before in ((CHAT, "Invalid image URL: 'messages"), (RESPONSES, "Invalid 'input")):
        kind = "image_url" if endpoint == CHAT else "input_image"
        url = pl.col("url") if endpoint == RESPONSES else pl.struct("url")
        # As a whole conversation, whose URLs are not checked before they are sent.
        part = pl.struct(type=pl.lit(kind), image_url=url)
        chat = pl.concat_list(pl.struct(role=pl.lit("user"), content=pl.concat_list(part)))
        with pytest.warns(bf.BatchframeWarning):
            out = bf.run(pl.DataFrame({"url": urls}), chat, model="gpt-4o-mini", endpoint=endpoint, client=client,
                         poll_seconds=0.05)  # fmt: skip
        errors = out["error"].struct.unnest()
        assert errors["code"].to_list() == ["invalid_value"] * 3 + ["invalid_image_format"]
        for message, what in zip(errors["message"][:3], got, strict=True):
            assert message.startswith(before)
            assert message.endswith(f"{expected}, but got {what}.")


def test_image_tokens_are_estimated_by_detail():
    large = data_url(PNG + bytes(1_000_000))
    for endpoint, detail, expected in ((CHAT, None, 765), (CHAT, "low", 85), (RESPONSES, "high", 765), (RESPONSES, "low", 85)):  # fmt: skip  # noqa: E501
        (line,) = bf.requests(
            column([large]), "{t}", model="m", images="image", image_detail=detail, endpoint=endpoint
        )["request"]
        tokens = estimated_tokens([line.encode()], len(line))
        assert expected <= tokens < expected + 20
