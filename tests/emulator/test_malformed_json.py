"""Malformed JSON: deep nesting, NaN, lone surrogates, broken UTF-8. None of it leads to a 500."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchframe.emulator._json import MAX_LEVELS, UnreadableError, decode
from batchframe.testing import emulator

from .conftest import body, create, jsonl, read, request, upload, wait
from .upstream_server import UpstreamServer

UNREADABLE = {
    "nested 2,000 deep": b"[" * 2000 + b"]" * 2000,
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deeper than the bound": b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1),
    "NaN": b"NaN",
    "-Infinity": b"-Infinity",
    "half a pair": rb'"\ud83d"',
    "the other half": rb'"\ude00 "',
    "half a pair as a key": rb'{"\ud83d": 1}',
    "broken UTF-8": b'"\xff"',
    "a number beyond all": b"1e400",
}
unreadable = pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)


def call(service, method, path, data):
    """Return the status and the message of a call."""
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    http_request = urllib.request.Request(service.endpoint + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(http_request) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)["error"]["message"]


@given(st.lists(st.sampled_from(["[%s]", '{"a":%s}', '[[], "[[[", %s, {}]']), min_size=1, max_size=MAX_LEVELS + 3))
def test_nesting_is_limited_by_depth(forms):
    raw = "1"
    for form in forms:
        raw = form % raw
    # Brackets in strings and brackets side by side add no level; the innermost bracket does.
    if len(forms) + (forms[0][1] == "[") <= MAX_LEVELS:
        assert decode(raw.encode()) == json.loads(raw)
    else:
        with pytest.raises(UnreadableError, match=f"more than {MAX_LEVELS} levels"):
            decode(raw.encode())


@pytest.mark.parametrize("form", ["[%s]", '{"a":%s}'])
def test_nesting_limit(form):
    raw = "1"
    for _ in range(MAX_LEVELS):
        raw = form % raw
    assert decode(raw.encode()) == json.loads(raw)
    with pytest.raises(UnreadableError, match=f"more than {MAX_LEVELS} levels"):
        decode((form % raw).encode())


@unreadable
@pytest.mark.parametrize("where", ["%s", '{"input_file_id": "file-x", "metadata": {"a": %s}}', '{"nonsense": %s}'])
def test_create_with_malformed_json(service, raw, where):
    status, message = call(service, "POST", "/v1/batches", where.encode().replace(b"%s", raw))
    assert (status, message[:29]) == (400, "We could not parse the JSON b")


@unreadable
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "settings"), ("POST", "faults"), ("POST", "row-faults"), ("POST", "batch-faults"),
        ("POST", "file-faults"), ("POST", "step"), ("POST", "expire"),
    ],
)  # fmt: skip
def test_control_call_with_malformed_json(service, raw, method, path):
    status, message = call(service, method, f"/_emulator/{path}", b'{"seed": ' + raw + b"}")
    assert (status, message[:29]) == (400, "We could not parse the JSON b")


@pytest.mark.parametrize("batch_id", [[], {}, 5, True])
def test_expire_with_a_bad_batch_id(service, batch_id):
    status, message = call(service, "POST", "/_emulator/expire", json.dumps({"batch_id": batch_id}).encode())
    assert (status, message[:40]) == (400, "Invalid type for 'batch_id': expected a ")


def test_more_steps_than_needed(service):
    service.configure(progression="stepped")
    assert call(service, "POST", "/_emulator/step", b'{"steps": %d}' % 10**15)[0] == 200


@unreadable
def test_malformed_first_line_of_an_upload(client, raw):
    with pytest.raises(Exception, match="Invalid file format for Batch API") as refused:
        upload(client, raw + b"\n")
    assert refused.value.status_code == 400


@unreadable
@pytest.mark.parametrize("dialect", ["openai", "azure-v1"])
def test_malformed_later_line(raw, dialect):
    line = json.dumps(request("b", body("x", metadata={"a": "HERE"}))).encode().replace(b'"HERE"', raw)
    with emulator(dialect) as service:
        client = service.client()
        batch = wait(client, create(client, upload(client, jsonl(request("a"), line))).id)
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert error.code in {"invalid_json_line", "json_parse_error"}
    assert "JSON" in error.message or "json" in error.message


def test_deepest_line_fails_its_row_only(client, service):
    """It is executed like any other line, without a RecursionError, whatever the limit on enqueued tokens."""
    service.configure(enqueued_token_limit=10**9)
    deep = json.loads("[" * (MAX_LEVELS - 4) + "]" * (MAX_LEVELS - 4))
    schema = {"type": "string"}
    for _ in range(MAX_LEVELS // 2 - 5):
        schema = {"anyOf": [schema]}
    outer = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    forms = [{"type": "json_schema", "json_schema": {"name": "a", "strict": s, "schema": outer}} for s in (True, False)]
    rows = [
        request("deep", body(logit_bias=deep)),
        request("content", body([{"type": "text", "text": "x", "more": deep[0][0][0]}])),
        *(request(f"schema-{number}", body(response_format=form)) for number, form in enumerate(forms)),
        request("fine"),
    ]
    batch = wait(client, create(client, upload(client, jsonl(*rows))).id)
    assert (batch.status, batch.request_counts.total) == ("completed", len(rows))
    refused = {line["custom_id"]: line["response"] for line in read(client, batch.error_file_id)}
    assert {response["status_code"] for response in refused.values()} == {400}
    assert "deep" in refused
    assert "fine" not in refused


def test_a_schema_that_requires_itself(client):
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}
    rows = [request("endless", body(response_format=form)), request("fine")]
    batch = wait(client, create(client, upload(client, jsonl(*rows))).id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 1)
    (line,) = read(client, batch.error_file_id)
    assert line["response"]["status_code"] == 400
    assert "has no end" in line["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("groups", [95, 150, 2000])
def test_a_pattern_of_many_groups(client, groups):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(" * groups + "x" + ")" * groups}}}
    schema |= {"required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}
    batch = wait(client, create(client, upload(client, jsonl(request("a", body(response_format=form))))).id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1)


def test_input_without_items_is_counted(service):
    """It counts no tokens; its execution refuses it."""
    service.configure(enqueued_token_limit=10**9)
    client = service.client()
    path = "/v1/moderations"
    line = {"custom_id": "a", "method": "POST", "url": path, "body": {"model": "omni-moderation-latest", "input": []}}
    batch = client.batches.create(input_file_id=upload(client, jsonl(line)), endpoint=path, completion_window="24h")
    assert (wait(client, batch.id).status, wait(client, batch.id).request_counts.failed) == ("completed", 1)


def test_upstream_gets_bodies_within_the_limit():
    deep = json.loads("[" * (MAX_LEVELS - 3) + "]" * (MAX_LEVELS - 3))
    with UpstreamServer().running() as upstream, emulator(upstream=upstream.url) as service:
        client = service.client()
        batch = wait(client, create(client, upload(client, jsonl(request("a", body("one", mine=deep))))).id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1)
    assert json.loads(upstream.bodies["one"])["mine"] == deep


@pytest.mark.parametrize("seconds", ["9" * 5000, "--5", "\N{SUPERSCRIPT TWO}", "1e3", ""])
def test_expiry_that_is_not_a_number(client, seconds):
    # Older SDKs omit an empty field.
    message = (
        "expected an integer"
        if seconds
        else r"expected an integer|Missing required parameter: 'expires_after\.seconds'"
    )
    with pytest.raises(Exception, match=message) as refused:
        client.files.create(
            file=("a.jsonl", jsonl(request("a"))),
            purpose="batch",
            extra_body={"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds},
        )
    assert refused.value.status_code == 400


def test_a_filter_with_too_many_digits():
    with emulator("azure") as service, pytest.raises(Exception, match=r"Invalid \$filter clause") as refused:
        service.client().batches.list(extra_query={"$filter": f"created_at gt {'9' * 5000}"})
    assert refused.value.status_code == 400


@pytest.mark.parametrize("kind", ["file-records", "batch-records"])
@pytest.mark.parametrize("raw", [b'{"number": 0', b"[]", *UNREADABLE.values()])
def test_a_damaged_record(tmp_path, kind, raw):
    """A record that a full disk damaged is reported before the server starts."""
    (tmp_path / kind).mkdir()
    path = tmp_path / kind / "x.json"
    path.write_bytes(raw)
    with pytest.raises(RuntimeError, match=f"the record {re.escape(str(path))} is damaged"):
        emulator(state_dir=tmp_path).__enter__()
    path.unlink()
    with emulator(state_dir=tmp_path) as service:
        assert service.client().batches.list().data == []
