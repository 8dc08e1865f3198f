"""The account's batches as a frame: one schema for every service and every origin."""

from __future__ import annotations

import datetime as dt
import json
import time

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._api import account
from batchframe._api.account import SCHEMA
from batchframe._core import lenient
from batchframe._providers.service import Service
from odd_service import OddService

UTC = dt.timezone.utc
NEW = 1_760_000_000  # 2025-10-09


def make(client, texts=("a",), metadata=None, model="gpt-4o-mini"):
    """Make a batch by hand, as others do, and wait for it."""
    lines = [
        {"custom_id": f"c-{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": model, "messages": [{"role": "user", "content": text}]}}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    data = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("a.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
    )
    while batch.status in {"validating", "in_progress", "finalizing"}:
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def batch(number=0, **changes):
    return {"id": f"batch_{number}", "object": "batch", "status": "completed", "created_at": NEW - number} | changes


def pages(batches):
    """Return what answers list calls as OpenAI does."""

    def answer(path, query):
        assert path == "/batches"
        ids = [one["id"] for one in batches]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        stop = start + int(query["limit"])
        return {"object": "list", "data": batches[start:stop], "has_more": stop < len(batches)}

    return answer


def test_own_and_foreign_batches(client):
    make(client, ["one", "two"], metadata={"project": "x"})
    bf.run(pl.DataFrame({"t": ["a", "b", "c"]}), "{t}", model="gpt-4o-mini", client=client, poll_seconds=0.05)
    found = bf.batches(client)
    assert dict(found.schema) == SCHEMA
    ours, theirs = found.rows(named=True)
    assert (ours["requests"], theirs["requests"]) == (3, 2)
    assert ours["run"] is not None
    assert theirs["run"] is None
    assert found["metadata"].str.json_path_match("$.project").to_list() == [None, "x"]
    assert ours["status"] == theirs["status"] == "completed"
    assert theirs["created_at"] <= theirs["ended_at"] < theirs["expires_at"]
    assert theirs["model"].startswith("gpt-4o-mini")
    assert theirs["input_tokens"] > 0
    assert theirs["output_file_id"]
    assert theirs["error_file_id"] is None
    assert theirs["errors"] == []


def test_an_account_without_batches_has_the_same_schema(client):
    assert dict(bf.batches(client).schema) == SCHEMA
    assert dict(bf.batches(client, since="1d", status="failed", limit=3).schema) == SCHEMA


def test_errors_of_a_rejected_input_file(client):
    refused = make(client, model="no-such-model")
    assert refused.status == "failed"
    (row,) = bf.batches(client, status="failed").rows(named=True)
    assert row["errors"][0]["code"] == "model_not_found"
    assert row["errors"][0]["line"] == 1
    assert row["ended_at"] is not None


def test_status_and_limit(client):
    good = [make(client).id for _ in range(2)]
    bad = make(client, model="no-such-model").id
    assert bf.batches(client, status="failed")["batch_id"].to_list() == [bad]
    assert set(bf.batches(client, status=["COMPLETED", "failed"])["batch_id"]) == {*good, bad}
    assert bf.batches(client, limit=1)["batch_id"].to_list() == [bad]
    assert bf.batches(client, status="completed", limit=1)["batch_id"].to_list() == [good[1]]
    assert bf.batches(client, status="in_progress").height == 0


def test_client_from_the_environment(emu, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", emu.base_url)
    assert bf.batches().height == 0
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(bf.OptionError, match="no API key"):
        bf.batches()


def test_the_list_is_read_back_to_since_only():
    listed = [batch(number * 3_600) for number in range(350)]
    with OddService(pages(listed)) as service:
        since = dt.datetime.fromtimestamp(NEW - 120 * 3_600, UTC)
        found = bf.batches(service.client, since=since)
        assert found.height == 121
        assert found["created_at"].min() == since
        assert len(service.asked) == 2
        assert bf.batches(service.client, limit=100).height == 100
        assert len(service.asked) == 3
        assert bf.batches(service.client).height == 350
        assert len(service.asked) == 7


SINCE = {
    "2025-10-01": dt.datetime(2025, 10, 1, tzinfo=UTC),
    "2025-10-01T08:30": dt.datetime(2025, 10, 1, 8, 30, tzinfo=UTC),
    "2025-10-01T08:30Z": dt.datetime(2025, 10, 1, 8, 30, tzinfo=UTC),
    "2025-10-01 08:30:00": dt.datetime(2025, 10, 1, 8, 30, tzinfo=UTC),
    "2025-10-01T08:30:00.25+02:00": dt.datetime(2025, 10, 1, 6, 30, 0, 250_000, tzinfo=UTC),
    dt.date(2025, 10, 1): dt.datetime(2025, 10, 1, tzinfo=UTC),
    dt.datetime(2025, 10, 1, 8): dt.datetime(2025, 10, 1, 8, tzinfo=UTC),  # noqa: DTZ001
    dt.datetime(2025, 10, 1, 8, tzinfo=dt.timezone(dt.timedelta(hours=2))): dt.datetime(2025, 10, 1, 6, tzinfo=UTC),
    None: None,
}


@pytest.mark.parametrize("since", SINCE, ids=repr)
def test_since(since):
    assert account._start(since) == SINCE[since]


@pytest.mark.parametrize(
    ("since", "back"),
    [("8h", dt.timedelta(hours=8)), (" 3 d", dt.timedelta(days=3)), ("90m", dt.timedelta(minutes=90)),
     ("2w", dt.timedelta(weeks=2)), (dt.timedelta(hours=1), dt.timedelta(hours=1))],
)  # fmt: skip
def test_since_back_from_now(since, back):
    assert abs(account._start(since) - (dt.datetime.now(UTC) - back)) < dt.timedelta(seconds=5)


def test_since_out_of_range():
    assert account._start("999999w") == dt.datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "yesterday"}, "since must be a datetime, a date, .* got 'yesterday'"),
        ({"since": "2025-13-01"}, "got '2025-13-01'"),
        ({"since": 5}, "got 5"),
        ({"since": dt.timedelta(hours=-1)}, "since must be"),
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"limit": True}, "limit must be"),
        ({"status": "complete"}, r"unknown status 'complete'. Did you mean 'completed'\? Known: validating"),
        ({"status": ["completed", "canceled"]}, "Did you mean 'cancelled'"),
        ({"status": []}, "status is empty"),
        ({"status": ""}, "unknown status ''"),
        ({"status": 5}, "status must be a text, or a list of texts"),
        ({"status": [None]}, "status must be a text, or a list of texts"),
        ({"client": "sk-x"}, r"must be an openai\.OpenAI"),
    ],
)
def test_invalid_arguments(options, message):
    client = options.pop("client", openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(bf.OptionError, match=message):
        bf.batches(client, **options)


def test_unknown_statuses_of_a_service_are_accepted():
    with OddService(pages([batch(status="paused"), batch(1)])) as service:
        assert bf.batches(service.client, status="paused")["batch_id"].to_list() == ["batch_0"]


# -- what services send


AZURE = {
    "cancelled_at": None,
    "completed_at": None,
    "completion_window": "24h",
    "created_at": "2024-07-19T17:13:57.2491382+00:00",
    "error_file_id": "",
    "expires_at": "2024-07-20T17:13:57.1918498+00:00",
    "id": "batch_fe3f047a-de39-4068-9008-346795bfc1db",
    "in_progress_at": None,
    "input_file_id": "file-21006e70789246658b86a1fc205899a4",
    "errors": None,
    "metadata": None,
    "object": "batch",
    "output_file_id": "",
    "request_counts": {"total": None, "completed": None, "failed": None},
    "status": "Validating",
    "endpoint": None,
}


def test_odd_batches_of_azure():
    with OddService(lambda *_: {"value": [AZURE, AZURE | {"id": "b2", "created_at": 1_722_477_429}]}) as service:
        found = bf.batches(service.client)
    assert dict(found.schema) == SCHEMA
    assert found["batch_id"].to_list() == ["b2", AZURE["id"]]
    row = found.row(1, named=True)
    assert row["status"] == "validating"
    assert row["created_at"] == dt.datetime(2024, 7, 19, 17, 13, 57, 249_138, tzinfo=UTC)
    present = {name for name, value in row.items() if value is not None}
    assert present == {"batch_id", "status", "created_at", "expires_at", "input_file_id", "errors"}
    assert row["errors"] == []


ODD = [
    {},
    {"status": None, "created_at": None, "request_counts": [], "usage": "x", "metadata": [1], "errors": 5},
    {"status": 7, "created_at": "soon", "completed_at": True, "request_counts": {"total": "3", "completed": 2.5}},
    {
        "created_at": [],
        "in_progress_at": 10**30,
        "expires_at": -(10**30),
        "request_counts": {"total": 2**64},
        "usage": {"input_tokens": -1},
    },
    {"errors": [{"line": "7"}, "text", {"line": 2**70, "code": None, "message": None}]},
    {"metadata": {"batchframe_run": 5, "a": {"b": None}}, "endpoint": {}, "model": ["m"], "output_file_id": {"x": 1}},
    {"created_at": "2024-07-19T17:13:57", "failed_at": 0.5, "cancelled_at": ""},
]


def test_malformed_batches_do_not_raise():
    # What names no id cannot be a row.
    listed = [batch(number) | odd for number, odd in enumerate(ODD)] + [{"id": None}, "text", None, 5]
    with OddService(lambda *_: {"data": listed, "has_more": False}) as service:
        found = bf.batches(service.client)
        later = bf.batches(service.client, since=dt.datetime(2025, 1, 1, tzinfo=UTC), status="completed")
    assert dict(found.schema) == SCHEMA
    assert sorted(found["batch_id"]) == [f"batch_{number}" for number in range(len(ODD))]
    # A batch without a readable time comes last, and is left out if since is passed.
    assert found["created_at"].is_null().to_list() == [False] * 4 + [True] * 3
    assert set(later["batch_id"]) == {"batch_0", "batch_4", "batch_5"}
    assert found.filter(batch_id="batch_6")["ended_at"][0] == dt.datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)


def test_a_list_that_repeats_its_page_ends():
    with OddService(lambda *_: {"data": [batch(0), batch(1)], "has_more": True}) as service:
        assert bf.batches(service.client).height == 2


def test_a_list_that_pages_by_cursor():
    def answer(_, query):
        number = int(query.get("cursor", "0"))
        return {"data": [batch(number)], "paging": {"next_cursor": str(number + 1)} if number < 3 else {}}

    with OddService(answer) as service:
        assert bf.batches(service.client).height == 4


def test_failed_calls_raise():
    with OddService(lambda *_: (401, {"error": {"message": "no"}})) as service:
        with pytest.raises(bf.AuthenticationError, match="list_batches: the service answered 401"):
            bf.batches(service.client)


# -- filtered by the service


def azure(service):
    return Service(service.client, "azure").client


SINCE_2024 = dt.datetime(2024, 7, 1, tzinfo=UTC)


def test_azure_filters_the_list():
    with OddService(lambda *_: {"data": [AZURE]}) as service:
        assert [found.id for found in azure(service).list_matching(SINCE_2024, "completed")] == [AZURE["id"]]
        assert [found.id for found in azure(service).list_matching(None, "in_progress")] == [AZURE["id"]]
        assert [found.id for found in azure(service).list_matching(SINCE_2024, "in_progress")] == [AZURE["id"]]
    filters = [query.get("$filter") for _, query in service.asked]
    after = f"created_at gt {int(SINCE_2024.timestamp()) - 1}"
    assert filters == [f"{after} and status eq 'Completed'", None, after]
    assert service.asked[0][1]["$orderby"] == "created_at desc"


@pytest.mark.parametrize(
    "refusal",
    [(400, {"error": {"code": "BadRequest", "message": "Unknown query parameter"}}), (404, {}), {"data": []}],
)
def test_an_unsupported_filter_loses_no_batch(refusal):
    with OddService(lambda _, query: refusal if "$filter" in query else {"data": [AZURE]}) as service:
        assert [found.id for found in azure(service).list_matching(SINCE_2024, "failed")] == [AZURE["id"]]
        assert len(service.asked) == 2


def test_the_next_pages_are_filtered_too():
    listed = [batch(number) for number in range(150)]
    with OddService(pages(listed)) as service:
        assert len(list(azure(service).list_matching(SINCE_2024, None))) == 150
    assert all("$filter" in query for _, query in service.asked)
    assert [query.get("after") for _, query in service.asked] == [None, "batch_99"]


def test_no_filter_is_sent_to_openai(client, emu):
    make(client)
    assert bf.batches(client, since="1d", status="completed").height == 1
    assert emu.calls()["list_batches"] == 1


# -- every service over the emulator


def hundred_and_eight(service):
    """Make 105 batches that fail, and two seconds later three that complete; return the moment between."""
    client = service.client()
    broken = client.files.create(file=("a.jsonl", b'{"custom_id": 1}\n'), purpose="batch")
    for _ in range(105):
        client.batches.create(input_file_id=broken.id, endpoint="/v1/chat/completions", completion_window="24h")
    time.sleep(2.1)  # the service tells whole seconds, and a filter leaves a second of room
    between = dt.datetime.now(UTC)
    good = [make(client, ["one", "two"], metadata={"n": str(number)}).id for number in range(3)]
    return between, good[::-1]


SPEAKS = {
    "openai": {},
    "azure, as its documents print it": {"dialect": "azure", "oddities": "all"},
    "azure-v1": {"dialect": "azure-v1"},
    "groq": {"service": "groq"},
}
# The arguments, the number of matching batches, and the number of pages that are read: with a filtering service,
# and without. A page holds 100. A filter without a match is not trusted. Only one-word statuses are documented.
CASES = {
    "all": ({}, 108, 2, 2),
    "limit": ({"limit": 3}, 3, 1, 1),
    "limit on the second page": ({"limit": 104}, 104, 2, 2),
    "status": ({"status": "completed"}, 3, 1, 2),
    "status and limit": ({"status": "completed", "limit": 2}, 2, 1, 1),
    "status on two pages": ({"status": "failed"}, 105, 2, 2),
    "several statuses": ({"status": ["completed", "failed"]}, 108, 2, 2),
    "status of two words": ({"status": "in_progress"}, 0, 2, 2),
    "status that none has": ({"status": "cancelled"}, 0, 3, 2),
    "since": ({"since": True}, 3, 1, 2),
    "since and status": ({"since": True, "status": "failed"}, 0, 3, 2),
    "since long ago": ({"since": "1h"}, 108, 2, 2),
    "since the day after tomorrow": ({"since": dt.datetime.now(UTC) + dt.timedelta(days=2)}, 0, 2, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("spoken", SPEAKS)
def test_batches_of_every_service(spoken, emulate):
    with emulate(progression="instant", **SPEAKS[spoken]) as service:
        between, good = hundred_and_eight(service)
        client = service.client()
        for case, (options, rows, filtered, unfiltered) in CASES.items():
            before = service.calls()
            since = {"since": between} if options.get("since") is True else {}
            found = bf.batches(client, **options | since)
            # It takes one or more list calls, and no other call.
            calls = {name: count - before.get(name, 0) for name, count in service.calls().items()}
            pages = filtered if spoken.startswith("azure") else unfiltered
            assert calls == dict.fromkeys(calls, 0) | {"list_batches": pages}, case
            assert (dict(found.schema), found.height) == (SCHEMA, rows), case
            assert set(found["status"]) <= {options["status"]} if isinstance(options.get("status"), str) else True
            if found.height and options.get("status") != "failed":
                assert found["batch_id"].to_list()[:3] == good[: found.height], case


def test_every_service_has_the_same_schema(emulate):
    frames = {}
    for spoken, settings in SPEAKS.items():
        with emulate(progression="instant", **settings) as service:
            make(service.client(), ["one", "two"], metadata={"project": "x"})
            make(service.client(), ["one"], model="no-such-model")
            while (found := bf.batches(service.client()))["ended_at"].null_count():
                time.sleep(0.01)
            frames[spoken] = found
    assert all(dict(found.schema) == SCHEMA for found in frames.values())
    same = ["status", "metadata", "run"]
    for found in frames.values():
        assert found[same].equals(frames["openai"][same])
        assert found.select(pl.col("created_at", "ended_at", "expires_at").is_not_null().all()).row(0) == (True,) * 3
        assert found["errors"].list.eval(pl.element().struct.field("code")).to_list() == [["model_not_found"], []]
    # Azure's documents print no counts and no endpoint; they are null then, and never 0.
    counts = {spoken: found["requests", "completed", "failed"].row(1) for spoken, found in frames.items()}
    assert counts == {spoken: (None,) * 3 if "documents" in spoken else (2, 2, 0) for spoken in SPEAKS}
    assert frames["azure, as its documents print it"]["endpoint"].null_count() == 2


def test_a_batch_created_within_the_second_of_since_is_listed(client):
    """The service tells the whole second in which it was made, which began before that moment."""
    while True:
        since = dt.datetime.now(UTC)
        made = make(client)
        if int(since.timestamp()) == made.created_at:
            break
    assert made.id in bf.batches(client, since=since)["batch_id"]


# -- lenient reading


@pytest.mark.parametrize(
    "value", [None, True, "", "x", [], {}, 1e300, -1e300, 10**400, float("nan"), "0000-00-00T00:00:00Z"]
)
def test_invalid_times_are_none(value):
    assert lenient.moment(value) is None


@pytest.mark.parametrize("value", [None, True, 1.5, "7", 2**63, -(2**63) - 1, [], {}])
def test_invalid_numbers_are_none(value):
    assert lenient.integer(value) is None


def test_many_batches_over_the_emulator(emulate):
    with emulate(progression="instant") as service:
        client = service.client()
        file = client.files.create(file=("a.jsonl", b'{"custom_id": 1}\n'), purpose="batch")
        for _ in range(105):
            client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert bf.batches(client).height == 105
        assert bf.batches(client, limit=103).height == 103
        assert service.calls()["list_batches"] == 4
