"""Each fault of a batch, and each oddity of the batch object."""

from __future__ import annotations

import time

import openai
import pytest

from batchframe.emulator._config.oddities import AZURE_ODDITIES, BATCH_ODDITIES
from batchframe.emulator._faults.batch_faults import BatchFault

from .conftest import body, create, ended, jsonl, read, request, upload, wait
from .test_control import call

ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(20)]


def counts(batch):
    return (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)


def get(service, batch):
    """Return the JSON of a batch object."""
    status, reply = call(service, "GET", f"/v1/batches/{batch.id}", key="x")
    assert status == 200
    return reply


# ------------------------------------------------------------------------------------------------------- ways to end


@pytest.mark.parametrize("progression", ["instant", "timed"])
@pytest.mark.parametrize(("kind", "status"), [("expire", "expired"), ("cancel", "cancelled")])
def test_batch_ends_after_a_fraction_of_its_rows(client, service, kind, status, progression):
    service.configure(progression=progression)
    service.batch_fault(kind, at=0.25)
    batch = ended(client, *ROWS)
    assert (batch.status, counts(batch)) == (status, (20, 5, 0))
    assert getattr(batch, f"{status}_at") is not None
    output, error = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert (len(output), len(error)) == (5, 15)
    assert {line["error"]["code"] for line in error} == {f"batch_{status}"}
    assert all(line["response"] is None for line in error)
    assert service.ledger()["billed"] == 5
    # Only one batch is hit.
    assert ended(client, *ROWS).status == "completed"


@pytest.mark.parametrize("kind", ["expire", "cancel"])
def test_unexecuted_rows_in_neither_file(client, service, kind):
    service.batch_fault(kind, at=0.5, unexecuted="nowhere")
    batch = ended(client, *ROWS)
    assert (len(read(client, batch.output_file_id)), batch.error_file_id) == (10, None)


def test_batch_ends_before_its_first_row(client, service):
    service.batch_fault("expire", at=0)
    batch = ended(client, *ROWS)
    assert (batch.status, batch.output_file_id, len(read(client, batch.error_file_id))) == ("expired", None, 20)
    assert service.ledger()["executions"] == 0


def test_fail(client, service):
    service.batch_fault("fail", code="billing_hard_limit_reached", message="No money.", param="x", lines=[2, 5])
    batch = ended(client, *ROWS)
    assert (batch.status, batch.output_file_id, counts(batch)) == ("failed", None, (0, 0, 0))
    errors = [(e.code, e.message, e.param, e.line) for e in batch.errors.data]
    assert errors == [("billing_hard_limit_reached", "No money.", "x", line) for line in (2, 5)]
    assert service.ledger()["executions"] == 0


def test_existing_file_is_not_found(client, service):
    service.batch_fault("cannot_find_file")
    file_id = upload(client, jsonl(*ROWS))
    [error] = wait(client, create(client, file_id).id).errors.data
    assert error.code == "invalid_request"
    assert error.message == f"Cannot find file {file_id}, or organization org-emulator does not have access to it."
    assert wait(client, create(client, file_id).id).status == "completed"


# ------------------------------------------------------------------------------------------------------------ waiting


@pytest.mark.parametrize("phase", ["validating", "in_progress", "finalizing"])
def test_stuck_batch_can_only_be_cancelled(client, service, phase):
    service.configure(progression="instant")
    service.batch_fault("stuck", phase=phase)
    batch = create(client, upload(client, jsonl(*ROWS)))
    wait(client, batch.id, lambda batch: batch.status == phase)
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
    done = {"validating": (0, 0, 0), "in_progress": (20, 10, 0), "finalizing": (20, 20, 0)}[phase]
    assert (batch.status, counts(batch)) == (phase, done)
    client.batches.cancel(batch.id)
    assert wait(client, batch.id).status == "cancelled"


def test_a_stuck_batch_expires(client, service):
    service.batch_fault("stuck")
    batch = create(client, upload(client, jsonl(*ROWS)))
    wait(client, batch.id, lambda batch: batch.status == "in_progress")
    service.expire(batch.id)
    assert wait(client, batch.id).status == "expired"


def test_a_slow_batch(client, service):
    service.configure(progression="instant")
    service.batch_fault("slow", seconds=0.5)
    started = time.monotonic()
    assert ended(client, *ROWS).status == "completed"
    assert time.monotonic() - started >= 0.5


def test_a_stuck_batch_does_not_hold_up_steps(client, service):
    service.configure(progression="stepped")
    service.batch_fault("stuck", phase="validating")
    stuck, other = (create(client, upload(client, jsonl(*ROWS))) for _ in range(2))
    service.step(5)
    assert client.batches.retrieve(stuck.id).status == "validating"
    assert client.batches.retrieve(other.id).status == "completed"


# -------------------------------------------------------------------------------------------------- what retrieves say


def test_a_late_output_id(client, service):
    service.batch_fault("late_output", polls=2)
    batch = ended(client, *ROWS)
    output_ids = [batch.output_file_id]
    output_ids += [client.batches.retrieve(batch.id).output_file_id for _ in range(2)]
    assert output_ids[:2] == [None, None]
    assert len(read(client, output_ids[2])) == 20


def test_outputs_expired(client, service):
    service.batch_fault("outputs_expired")
    batch = ended(client, *ROWS, request("bad", body(foo=1)))
    for file_id in (batch.output_file_id, batch.error_file_id):
        with pytest.raises(openai.NotFoundError):
            client.files.content(file_id)
    assert time.time() - batch.completed_at >= 30 * 86_400 > time.time() - batch.completed_at - 60
    assert batch.created_at <= batch.completed_at


@pytest.mark.parametrize(("spelling", "expected"), [("null", None), ("empty", ""), ("zero_bytes", "file-")])
def test_spellings_of_an_absent_file_id(client, service, spelling, expected):
    service.batch_fault("absent_id", spelling=spelling)
    batch = ended(client, *ROWS)
    assert batch.error_file_id == expected or batch.error_file_id.startswith("file-")
    if spelling == "zero_bytes":
        assert client.files.content(batch.error_file_id).content == b""
    assert len(read(client, batch.output_file_id)) == 20


def test_an_unknown_status(client, service):
    service.configure(progression="stepped")
    service.batch_fault("unknown_status", status="queued", polls=2)
    batch = create(client, upload(client, jsonl(*ROWS)))
    statuses = [batch.status] + [client.batches.retrieve(batch.id).status for _ in range(3)]
    assert statuses == ["queued", "queued", "queued", "validating"]


def test_batch_is_gone_for_some_polls(client, service):
    service.batch_fault("gone", polls=2)
    batch = create(client, upload(client, jsonl(*ROWS)))
    for _ in range(2):
        with pytest.raises(openai.NotFoundError, match="No batch found"):
            client.batches.retrieve(batch.id)
    assert client.batches.retrieve(batch.id).id == batch.id


def test_list_shows_a_batch_late(client, service):
    service.batch_fault("list_late", polls=2)
    service.batch_fault("list_late", seconds=0.3, skip=1)
    by_calls, by_time = (create(client, "file-x").id for _ in range(2))
    assert [len(client.batches.list().data) for _ in range(2)] == [0, 0]
    assert [batch.id for batch in client.batches.list().data] == [by_calls]
    time.sleep(0.3)
    assert [batch.id for batch in client.batches.list().data] == [by_time, by_calls]


def test_list_shows_an_outdated_batch(client, service):
    service.configure(progression="stepped")
    service.batch_fault("list_still")
    service.batch_fault("list_still", polls=0, skip=1)
    file = upload(client, jsonl(*ROWS))
    still, frozen = (create(client, file).id for _ in range(2))

    def listed():
        return {batch.id: batch.status for batch in client.batches.list().data}

    service.step()
    assert listed() == {still: "validating", frozen: "validating"}
    statuses = [client.batches.retrieve(batch).status for batch in (still, frozen)]
    assert statuses == ["in_progress", "in_progress"]
    assert listed() == {still: "in_progress", frozen: "validating"}


# ----------------------------------------------------------------------------------------------------------- oddities

FAILED = [request("a"), request("a")]
SEEN = [
    ("capital_status", ROWS, lambda b: b["status"] == "Completed"),
    ("iso_timestamps", ROWS, lambda b: str(b["created_at"]).endswith(".0000000+00:00")),
    ("null_counts", ROWS, lambda b: b["request_counts"] == {"total": None, "completed": None, "failed": None}),
    ("null_endpoint", ROWS, lambda b: b["endpoint"] is None),
    ("empty_ids", ROWS, lambda b: b["error_file_id"] == "" and b["output_file_id"].startswith("file-")),
    ("null_in_progress_at", ROWS, lambda b: b["in_progress_at"] is None and b["completed_at"] is not None),
    ("completed_at_of_failed", FAILED, lambda b: b["failed_at"] is None and b["completed_at"] is not None),
    ("unplaced_errors", FAILED, lambda b: set(b["errors"]["data"][0]) == {"code", "message"}),
    ("bare_errors", FAILED, lambda b: isinstance(b["errors"], list) and b["errors"][0]["line"] == 2),
    ("text_errors", FAILED, lambda b: str(b["errors"]).startswith("line 2: duplicate_custom_id: The custom_id 'a'")),
    ("no_metadata", ROWS, lambda b: b["metadata"] is None),
    ("no_counts", ROWS, lambda b: b["request_counts"] is None),
    (
        "wrong_counts",
        [*ROWS, request("x", body(foo=1))],
        lambda b: b["request_counts"] == {"total": 21, "completed": 21, "failed": 0},
    ),
    ("top_counts", ROWS, lambda b: (b["request_counts"], b.get("total"), b.get("completed")) == (None, 20, 20)),
    ("upper_status", ROWS, lambda b: b["status"] == "COMPLETED"),
    ("null_expires_at", ROWS, lambda b: b["expires_at"] is None),
    ("omit_nulls", ROWS, lambda b: "error_file_id" not in b and "id" in b),
]


def test_the_table_of_oddities_is_complete():
    assert {name for name, _, _ in SEEN} | {"canceled", "progress_status"} == BATCH_ODDITIES


@pytest.mark.parametrize("by", ["fault", "setting"])
@pytest.mark.parametrize(("oddity", "rows", "is_seen"), SEEN, ids=[name for name, _, _ in SEEN])
def test_an_oddity(client, service, oddity, rows, is_seen, by):  # noqa: PLR0917
    file_id = upload(client, jsonl(*rows))
    plain = wait(client, create(client, file_id, metadata={"a": "b"}).id)
    assert not is_seen(get(service, plain))
    if by == "fault":
        service.batch_fault(oddity)
    batch = create(client, file_id, metadata={"a": "b"})
    wait(client, batch.id, lambda batch: batch.status.lower() in {"completed", "failed"})
    if by == "setting":
        service.configure(oddities=[oddity])
    assert is_seen(get(service, batch))
    assert is_seen(call(service, "GET", "/v1/batches", key="x")[1]["data"][0])
    service.configure(oddities=[])
    assert not is_seen(get(service, plain))


def test_status_canceled_with_one_l(client, service):
    service.batch_fault("canceled")
    service.batch_fault("cancel")
    batch = create(client, upload(client, jsonl(*ROWS)))
    assert wait(client, batch.id, lambda batch: batch.status == "canceled").cancelled_at is not None


def test_in_progress_is_called_progress(client, service):
    service.batch_fault("progress_status")
    service.batch_fault("stuck", phase="in_progress", at=0)
    batch = create(client, upload(client, jsonl(*ROWS)))
    assert wait(client, batch.id, lambda batch: batch.status == "progress").in_progress_at is not None


def test_list_is_called_value(client, service):
    create(client, "file-x")
    service.configure(oddities=["value_list"])
    page = client.batches.list()
    assert page.data is None
    assert [batch["object"] for batch in page.value] == ["batch"]


def test_all_of_azures_oddities(client, service):
    service.configure(oddities="all")
    batch = create(client, upload(client, jsonl(*ROWS)), metadata={"a": "b"})
    assert (batch.status, batch.endpoint, batch.output_file_id, batch.error_file_id) == ("Validating", None, "", "")
    assert (batch.request_counts.total, batch.metadata, type(batch.created_at)) == (None, {"a": "b"}, str)
    batch = wait(client, batch.id, lambda batch: batch.status == "Completed")
    assert len(read(client, batch.output_file_id)) == 20
    assert set(AZURE_ODDITIES) - BATCH_ODDITIES == {"value_list", "null_file_status"}


# ---------------------------------------------------------------------------------------------------- which, how often


def test_times_skip_and_combined_faults(client, service):
    service.batch_fault("expire", at=0.5, times=2, skip=1)
    service.batch_fault("late_output", polls=1, skip=1, times=None)
    batches = [ended(client, *ROWS) for _ in range(4)]
    assert [batch.status for batch in batches] == ["completed", "expired", "expired", "completed"]
    assert [batch.output_file_id is None for batch in batches] == [False, True, True, True]


def test_batch_faults_over_http(client, service):
    status, waiting = call(service, "POST", "/_emulator/batch-faults", {"kind": "fail", "code": "c"})
    assert (status, len(waiting)) == (200, 1)
    assert ended(client, *ROWS).errors.data[0].code == "c"
    assert call(service, "GET", "/_emulator/batch-faults") == (200, [])
    for wrong in ({"kind": "nonsense"}, {"kind": "expire", "at": 1}, {"kind": "list_late"}, {"kind": "value_list"}):
        assert call(service, "POST", "/_emulator/batch-faults", wrong)[0] == 400
    with pytest.raises(TypeError, match="list_late"):
        service.batch_fault("list_late", seconds=1, polls=1)
    service.batch_fault("fail", times=None)
    service.clear_faults()
    assert ended(client, *ROWS).status == "completed"
    assert BatchFault(kind="fail").times == 1
