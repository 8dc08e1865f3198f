"""All faults together: whatever happens, the emulator itself does not fail, and its ledger stays true."""

from __future__ import annotations

import json
from io import BytesIO
from threading import Event
from typing import get_args

import pytest

from batchframe.emulator import Settings
from batchframe.emulator._batches.validation import validate
from batchframe.emulator._config.dialects import DIALECTS
from batchframe.emulator._config.oddities import BATCH_ODDITIES
from batchframe.emulator._faults.row_faults import FILE_KINDS, RowKind
from batchframe.testing import emulator

from .conftest import body, create, jsonl, request, upload, wait

pytestmark = pytest.mark.slow

ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(120)]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
ROWS += [request(f"tool-{i}", body(f"{i}", tools=[TOOL], tool_choice="required")) for i in range(10)]
ROWS += [request(f"bad-{i}", body(f"{i}", foo=1)) for i in range(10)]
KINDS = get_args(RowKind)
# The options that a kind requires.
REQUIRED = {"rewritten": {"old": '"error":null', "new": '"error":NaN'}}
ENDS = {"completed", "expired", "cancelled", "canceled"}


@pytest.fixture(scope="module", params=DIALECTS)
def spoken(request):
    with emulator(request.param, progression="instant") as service:
        yield service


def run(service, rows=ROWS):
    """Return the batch and the raw lines of both files."""
    client = service.client()
    batch = create(client, upload(client, jsonl(*rows)))
    batch = wait(client, batch.id, lambda batch: str(batch.status).lower() in ENDS | {"failed"})
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    return batch, [line for name in files for line in client.files.content(name).content.split(b"\n")]


def share(kind):
    return {} if kind in FILE_KINDS else {"share": 0.15} | REQUIRED.get(kind, {})


@pytest.mark.parametrize("seed", range(4))
def test_all_row_faults_at_once(spoken, seed):
    spoken.reset()
    spoken.configure(seed=seed)
    for kind in KINDS:
        spoken.row_fault(kind, attempts=None, **share(kind))
    batch, lines = run(spoken)
    assert batch.status == "completed"
    assert batch.request_counts.completed + batch.request_counts.failed == len(ROWS)
    assert len(lines) > len(ROWS) / 2
    assert not any(b"emulator_error" in line for line in lines)
    ledger = spoken.ledger()
    assert len(ROWS) * 0.3 < ledger["billed"] < ledger["executions"] < len(ROWS)
    # The same seed gives the same outcome.
    spoken.reset()
    spoken.configure(seed=seed)
    for kind in KINDS:
        spoken.row_fault(kind, attempts=None, **share(kind))
    run(spoken)
    assert spoken.ledger() == ledger


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FILE_KINDS])
@pytest.mark.parametrize("other", ["duplicate", "missing", "in_error_file", "no_body"])
@pytest.mark.parametrize("spoken", ["openai", "azure"], indirect=True)
def test_two_faults_on_every_row(spoken, kind, other):
    spoken.reset()
    spoken.row_fault(kind, attempts=None, **REQUIRED.get(kind, {}))
    spoken.row_fault(other, attempts=None)
    batch, lines = run(spoken, ROWS[:3])
    assert batch.status == "completed"
    assert batch.errors is None
    if other == "duplicate" and kind not in {"missing", "unknown_id"}:
        assert sum(map(bool, lines)) == (12 if kind == "duplicate" else 6)
    if other == "missing" and kind != "unknown_id":
        assert not any(lines)


@pytest.mark.parametrize("end", ["expire", "cancel"])
def test_all_oddities_at_once(spoken, end):
    spoken.reset()
    for oddity in BATCH_ODDITIES - {"omit_nulls"}:
        spoken.batch_fault(oddity)
    spoken.batch_fault(end, at=0.5)
    spoken.configure(oddities=["null_file_status"])
    batch, lines = run(spoken)
    assert batch.status == ("EXPIRED" if end == "expire" else "CANCELED")
    assert (batch.endpoint, batch.metadata, batch.request_counts) == (None, None, None)
    ids = {json.loads(line)["custom_id"] for line in lines if line}
    assert len(ids) == len(ROWS)


def test_persistent_call_fault_with_one_row_fault(spoken):
    spoken.reset()
    spoken.fault("list_batches", "status", times=None)
    spoken.row_fault("server_error", custom_ids=["row-0"])
    for billed in (2, 5):
        run(spoken, ROWS[:3])
        assert spoken.ledger()["billed"] == billed


@pytest.mark.parametrize(("dialect", "most"), [("openai", 50_000), ("azure", 100_000), ("azure-v1", 100_000)])
def test_file_with_the_maximum_of_requests(dialect, most):
    line = '{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o","messages":[]}}\n'
    content = "".join(line % number for number in range(most)).encode()
    settings = Settings(dialect=dialect)
    for more, codes in ((b"", []), ((line % -1).encode(), [{"openai": "batch_request_limit_exceeded"}.get(dialect)])):
        validation = validate(BytesIO(content + more), "/v1/chat/completions", settings, Event())
        assert [error.code for error in validation.errors] == [code or "too_many_tasks" for code in codes]
