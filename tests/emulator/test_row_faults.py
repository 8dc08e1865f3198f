"""Each fault of rows: its lines in the files, and its entries in the ledger."""

from __future__ import annotations

import json

import pytest

from batchframe.emulator import answer, body_digest

from .conftest import body, create, ended, jsonl, read, request, upload, wait
from .test_control import call

ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(20)]


def raw(client, file_id):
    return client.files.content(file_id).content if file_id else b""


def files(client, batch):
    return [read(client, name) if name else [] for name in (batch.output_file_id, batch.error_file_id)]


def hit(client, service, kind, **options):
    """Run ten rows of which row-3 is hit; return its lines in both files, after checking the other rows."""
    service.row_fault(kind, **{"custom_ids": ["row-3"], **options})
    output, error = files(client, ended(client, *ROWS[:10]))
    assert {f"row-{i}" for i in range(10)} - {"row-3"} == {x["custom_id"] for x in output if x["custom_id"] != "row-3"}
    mine = [[line for line in lines if line["custom_id"] == "row-3"] for lines in (output, error)]
    assert len(output) + len(error) == 9 + len(mine[0]) + len(mine[1])
    return mine


def billed(service):
    ledger = service.ledger()
    digest = body_digest(ROWS[3]["body"])
    return ledger["by_custom_id"].get("row-3", 0), ledger["billed_by_body"].get(digest, 0)


@pytest.mark.parametrize(
    ("kind", "options", "status", "code", "executed"),
    [
        (
            "status",
            {"status": 404, "code": "model_not_found", "message": "gone", "type": "t"},
            404,
            "model_not_found",
            1,
        ),
        ("status", {"status": 503}, 503, None, 0),
        ("rate_limited", {}, 429, "rate_limit_exceeded", 0),
        ("server_error", {}, 500, None, 0),
        ("server_error", {"status": 503}, 503, None, 0),
    ],
)
def test_a_failed_row_has_an_error_line_whose_error_is_null(client, service, kind, options, status, code, executed):  # noqa: PLR0917
    output, [line] = hit(client, service, kind, **options)
    assert output == []
    assert line["error"] is None
    assert line["response"]["status_code"] == status
    assert line["response"]["body"]["error"]["code"] == code
    for name in ("message", "type"):
        assert line["response"]["body"]["error"][name] == options.get(name, line["response"]["body"]["error"][name])
    assert billed(service) == (executed, 0)
    [batch] = client.batches.list().data
    assert (batch.request_counts.completed, batch.request_counts.failed) == (9, 1)


@pytest.mark.parametrize(("how", "expected"), [(None, None), ("empty", {}), ("null", None)])
def test_a_row_of_status_0_is_counted_as_completed_and_was_not_executed(client, service, how, expected):
    output, [line] = hit(client, service, "status", status=0, **({"body": how} if how else {}))
    assert output == []
    assert (line["response"]["status_code"], line["response"]["body"], line["error"]) == (0, expected, None)
    [batch] = client.batches.list().data
    assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 0)
    assert billed(service) == (0, 0)
    assert batch.usage.output_tokens == sum(
        line["response"]["body"]["usage"]["completion_tokens"] for line in read(client, batch.output_file_id)
    )


@pytest.mark.parametrize(
    ("kind", "content", "refusal", "reason"),
    [
        ("content_filter", "", None, "content_filter"),
        ("refusal", None, "I'm sorry, I can't assist with that.", "stop"),
        ("length", "half", None, "length"),
    ],
)
def test_useless_answer_is_billed(client, service, kind, content, refusal, reason):  # noqa: PLR0917
    [line], error = hit(client, service, kind)
    usual = answer(ROWS[3]["body"])["choices"][0]["message"]["content"]
    [choice] = line["response"]["body"]["choices"]
    expected = usual[: len(usual) // 2] if content == "half" else content
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (expected, refusal)
    assert (choice["finish_reason"], error) == (reason, [])
    usage = line["response"]["body"]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert billed(service) == (1, 1)


def test_separators_are_unescaped_in_the_answer(client, service):
    [line], _ = hit(client, service, "separators")
    usual = answer(ROWS[3]["body"])["choices"][0]["message"]["content"]
    content = line["response"]["body"]["choices"][0]["message"]["content"]
    assert content == "one\u2028two\u2029three\u0085four " + usual
    [batch] = client.batches.list().data
    content = raw(client, batch.output_file_id)
    assert all(character.encode() in content for character in "\u2028\u2029\u0085")


def test_separators_keep_a_json_answer_valid(client, service):
    service.row_fault("separators")
    schema = {"type": "object", "properties": {"note": {"type": "string", "minLength": 1}}, "required": ["note"]}
    request_body = body(
        "one two three four", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    )
    batch = ended(client, request("a", request_body))
    [line] = read(client, batch.output_file_id)
    content = line["response"]["body"]["choices"][0]["message"]["content"]
    assert "\u2028" in json.loads(content)["note"]


def test_a_missing_row_was_executed_and_billed(client, service):
    assert hit(client, service, "missing") == [[], []]
    assert billed(service) == (1, 1)
    [batch] = client.batches.list().data
    assert (batch.request_counts.total, batch.request_counts.completed) == (10, 10)


def test_a_malformed_line_was_executed_and_billed(client, service):
    service.row_fault("malformed", custom_ids=["row-3"], at=0.6)
    batch = ended(client, *ROWS[:10])
    broken = []
    for line in raw(client, batch.output_file_id).split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:  # noqa: PERF203 - ten lines
            broken.append(line)
    assert len(broken) == 1
    assert b'"custom_id":"row-3"' in broken[0]
    assert billed(service) == (1, 1)


def test_a_rewritten_line(client, service):
    service.row_fault("rewritten", custom_ids=["row-3"], old='"content":"', new='"content":"\\ud83d')
    batch = ended(client, *ROWS[:10])
    odd = [line for line in raw(client, batch.output_file_id).split(b"\n") if rb"\ud83d" in line]
    assert [json.loads(line)["custom_id"] for line in odd] == ["row-3"]
    assert billed(service) == (1, 1)
    with pytest.raises(TypeError, match="'rewritten' needs 'old'"):
        service.row_fault("rewritten", new="x")


def test_a_duplicate_line(client, service):
    [one, two], error = hit(client, service, "duplicate")
    assert (one, error) == (two, [])
    assert billed(service) == (1, 1)


def test_duplicate_line_with_an_error(client, service):
    [one], [other] = hit(client, service, "duplicate", copy="error")
    assert (one["response"]["status_code"], other["response"]["status_code"]) == (200, 500)


@pytest.mark.parametrize(("how", "expected"), [(None, None), ("empty", {}), ("absent", "absent")])
def test_an_answer_without_a_body(client, service, how, expected):
    [line], _ = hit(client, service, "no_body", **({"body": how} if how else {}))
    assert line["response"]["status_code"] == 200
    assert line["response"].get("body", "absent") == expected
    assert billed(service) == (1, 1)


def test_a_body_as_text(client, service):
    [line], _ = hit(client, service, "body_as_text")
    inner = json.loads(line["response"]["body"])
    assert inner == answer(ROWS[3]["body"], created=inner["created"])


def test_a_failed_line_in_the_output_file(client, service):
    [line], error = hit(client, service, "in_output_file")
    assert (line["response"]["status_code"], error) == (500, [])
    [batch] = client.batches.list().data
    assert batch.request_counts.failed == 0
    assert billed(service) == (0, 0)


def test_an_answer_in_the_error_file(client, service):
    output, [line] = hit(client, service, "in_error_file")
    assert (output, line["response"]["status_code"]) == ([], 200)
    assert billed(service) == (1, 1)


def test_line_with_an_unknown_custom_id(client, service):
    service.row_fault("unknown_id", custom_ids=["row-3"])
    batch = ended(client, *ROWS[:10])
    assert {line["custom_id"] for line in read(client, batch.output_file_id)} == {
        *(f"row-{i}" for i in range(10)),
        "unknown-row-3",
    }
    assert service.ledger()["executions"] == 10


@pytest.mark.parametrize("kind", ["crlf", "blank_lines", "no_final_newline", "truncated_last_line"])
def test_faults_of_whole_files(client, service, kind):
    service.configure(shuffle=False)
    usual = raw(client, ended(client, *ROWS).output_file_id)
    service.row_fault(kind)
    content = raw(client, ended(client, *ROWS).output_file_id)
    assert usual.count(b"\n") == 20
    counts = (content.count(b"\n"), content.count(b"\r\n"), content.endswith(b"\n"), content.endswith(b"}"))
    assert (
        counts
        == {
            "crlf": (20, 20, True, False),
            "blank_lines": (39, 0, True, False),
            "no_final_newline": (19, 0, False, True),
            "truncated_last_line": (19, 0, False, False),
        }[kind]
    )
    assert sum(b'"custom_id":"row-' in line for line in content.split(b"\n")) == 20
    assert service.ledger()["billed"] == 40
    # Only one batch is hit.
    assert raw(client, ended(client, *ROWS).output_file_id).count(b"\n") == 20


# ---------------------------------------------------------------------------------------------------- which, how often


def failed(client, rows=ROWS):
    return {line["custom_id"] for line in files(client, ended(client, *rows))[1]}


def test_attempts_are_counted_by_body(client, service):
    service.row_fault("rate_limited", containing="Text number 7", attempts=2)
    again = [request(f"again-{i}", row["body"]) for i, row in enumerate(ROWS)]
    assert failed(client) == {"row-7"}
    assert failed(client, again) == {"again-7"}
    assert failed(client) == set()
    service.row_fault("rate_limited", custom_ids=["row-1", "row-2"], attempts=None)
    assert failed(client) == failed(client) == {"row-1", "row-2"}


def test_every_nth(client, service):
    service.row_fault("rate_limited", every=6)
    assert failed(client) == {"row-5", "row-11", "row-17"}


def test_share_depends_on_the_seed(client, service):
    def drawn(seed):
        service.reset()
        service.configure(seed=seed)
        service.row_fault("rate_limited", share=0.2, attempts=None)
        rows = [request(f"row-{i}", body(f"Text number {i}")) for i in range(500)]
        return failed(client, rows)

    first = drawn(1)
    assert 60 < len(first) < 140
    assert drawn(1) == first
    assert drawn(2) != first


def test_faults_combine(client, service):
    service.row_fault("separators", custom_ids=["row-3"])
    service.row_fault("duplicate", custom_ids=["row-3"])
    service.row_fault("rate_limited", every=5)
    service.row_fault("crlf")
    batch = ended(client, *ROWS)
    content = raw(client, batch.output_file_id)
    assert content.count(b"\r\n") == content.count(b"\n") == 17
    assert content.count("\u2028".encode()) == 2
    assert {line["custom_id"] for line in read(client, batch.error_file_id)} == {"row-4", "row-9", "row-14", "row-19"}


def test_row_faults_over_http(client, service):
    fault = {"kind": "missing", "custom_ids": ["row-0"], "attempts": None}
    status, waiting = call(service, "POST", "/_emulator/row-faults", [fault])
    assert (status, len(waiting)) == (200, 1)
    assert fault.items() <= waiting[0].items()
    output, error = files(client, ended(client, *ROWS))
    assert (len(output), error) == (19, [])
    assert call(service, "DELETE", "/_emulator/row-faults") == (200, [])
    for wrong in (
        {"kind": "nonsense"},
        {"kind": "missing", "share": 2},
        {"kind": "crlf", "every": 2},
        {"kind": "missing", "every": 0},
    ):
        assert call(service, "POST", "/_emulator/row-faults", wrong)[0] == 400
    with pytest.raises(TypeError, match="whole files"):
        service.row_fault("crlf", share=0.5)
    with pytest.raises(TypeError, match="status"):
        service.row_fault("status", status=200)
    service.row_fault("missing", attempts=None)
    service.clear_faults()
    assert len(files(client, ended(client, *ROWS))[0]) == 20


def test_cancelled_batch_has_faults_only_in_executed_rows(client, service):
    service.configure(progression="stepped")
    service.row_fault("rate_limited", attempts=None)
    batch = create(client, upload(client, jsonl(*ROWS)))
    service.step(2)
    client.batches.cancel(batch.id)
    service.step()
    lines = read(client, wait(client, batch.id).error_file_id)
    assert sum(line["response"] is not None for line in lines) == 10
    assert sum((line["error"] or {}).get("code") == "batch_cancelled" for line in lines) == 10
