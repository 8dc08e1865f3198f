"""Resume a run with a key of another project: nothing is submitted, and the error says why."""

from __future__ import annotations

import polars as pl
import pytest

import batchframe as bf
from batchframe import testing
from batchframe._core import events

N = 12
FRAME = pl.DataFrame({"n": range(N)})
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.02, "settle_seconds": 0.3}
ONE = {"limits": bf.Limits(max_requests=6, max_in_flight=1)}  # parts of 1, 6 and 5 requests, one after the other
TWO = {"limits": bf.Limits(max_requests=6)}
SAYS = "does not show .* another key or project"


@pytest.fixture(params=["openai", "azure"])
def service(request, emulate):
    with emulate(request.param, isolate="key", progression="instant") as emu:
        yield emu


def ask(service, key="sk-first", **options):
    return bf.run(FRAME, "Repeat {n}", client=service.client(api_key=key, max_retries=0), **ARGUMENTS | options)


def dies(service, point, nth=1, **options):
    """Make the call, and let the process come to an end at a point."""
    left = [nth]

    def die():
        left[0] -= 1
        if not left[0]:
            raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(events._triggers, point, die)
        with pytest.raises(ZeroDivisionError):
            ask(service, **options)


def is_whole(service, out):
    ledger = service.ledger()
    return (
        out["n"].equals(FRAME["n"])
        and out["response"].to_list() == [f"In short: Repeat {n}." for n in FRAME["n"]]
        and set(ledger["by_body"].values()) == {1}
        and ledger["executions"] == N
    )


def once(service):
    """Whether nothing was executed twice."""
    ledger = service.ledger()
    return set(ledger["by_body"].values()) == {1} and ledger["executions"] == ledger["billed"]


# -- where the first process left the run


def uploaded(service):
    dies(service, "after_upload")


def in_doubt(service):
    dies(service, "after_create_call")


def refused_for_now(service):
    service.fault("create_batch", "status", status=429, times=None)
    with pytest.raises(bf.RunPendingError):
        ask(service, timeout_seconds=0)
    service.clear_faults()


def in_flight(service):
    service.configure(progression="stepped")
    dies(service, "after_create", **ONE)
    service.configure(progression="instant")


def in_flight_beside_an_upload(service):
    service.configure(progression="stepped")
    dies(service, "after_upload", 2, **TWO)
    service.configure(progression="instant")


def ended(service):
    dies(service, "after_ended", **ONE)


def downloaded(service):
    dies(service, "before_upload", 2, **ONE)


def downloaded_beside_an_upload(service):
    dies(service, "after_upload", 2, **ONE)


STATES = {
    uploaded: {},
    in_doubt: {},
    refused_for_now: {},
    in_flight: ONE,
    in_flight_beside_an_upload: TWO,
    ended: ONE,
    downloaded: ONE,
    downloaded_beside_an_upload: ONE,
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_is_submitted_with_a_key_of_another_project(service, state):
    state(service)
    before = service.calls()
    for _ in range(2):
        with pytest.raises(bf.RunError, match=SAYS):
            ask(service, "sk-second", **STATES[state])
    after = service.calls()
    assert all(after.get(call, 0) == before.get(call, 0) for call in ("create_file", "create_batch", "delete_file"))
    assert is_whole(service, ask(service, **STATES[state]))


def test_rest_of_a_rejected_file_is_not_submitted_with_another_key(service):
    service.batch_fault("fail", lines=[2, 3])
    dies(service, "before_upload", 2)
    with pytest.raises(bf.RunError, match=SAYS):
        ask(service, "sk-second")
    assert (service.calls()["create_file"], service.calls()["create_batch"]) == (1, 1)


def test_rows_are_not_retried_with_another_key(service, tmp_path):
    service.row_fault("status", status=400, custom_ids=["row-3"])
    with pytest.warns(bf.BatchframeWarning):
        ask(service, run_dir=tmp_path / "run")
    with pytest.raises(bf.RunError, match=SAYS):
        bf.open_run(tmp_path / "run", client=service.client(api_key="sk-second")).retry().wait()
    assert (service.calls()["create_file"], service.calls()["create_batch"]) == (1, 1)
    assert bf.open_run(tmp_path / "run", client=service.client(api_key="sk-first")).wait().succeeded == N


def test_files_invisible_to_another_key_do_not_count_as_deleted(service, tmp_path):
    call = {"run_dir": tmp_path / "run"}
    out = ask(service, **call)
    client = service.client(api_key="sk-first")
    for _ in range(2):
        with pytest.raises(bf.BatchframeError, match="No batch found|No such|" + SAYS):
            bf.open_run(tmp_path / "run", client=service.client(api_key="sk-second")).cleanup()
    # Answers are not kept back for it.
    assert ask(service, "sk-second", cleanup="when_done", **call).equals(out)
    assert len(list(client.files.list())) >= 2
    assert bf.open_run(tmp_path / "run", client=client).cleanup() >= 2
    assert not list(client.files.list())


def test_the_suggested_call_works(service):
    downloaded_beside_an_upload(service)
    with pytest.raises(bf.RunError, match=r"pass another name= and reuse='(.*)' to pay once more") as raised:
        ask(service, "sk-second", **ONE)
    (path,) = bf.list_runs()["path"]
    assert repr(path) in str(raised.value)
    assert ask(service, "sk-second", name="anew", reuse=path, **ONE)["error"].null_count() == N
    assert service.ledger()["executions"] == N


# -- what looks like it, and is not


def delete_the_newest_file(service):
    client = service.client(api_key="sk-first")
    client.files.delete(client.files.list(purpose="batch").data[0].id)


@pytest.mark.parametrize("state", [in_flight_beside_an_upload, downloaded_beside_an_upload])
def test_deleted_input_files_are_uploaded_again_if_the_run_is_visible(service, state):
    state(service)
    delete_the_newest_file(service)
    assert is_whole(service, ask(service, **STATES[state]))


def test_a_run_without_visible_traces_can_be_started_again(service):
    uploaded(service)
    delete_the_newest_file(service)
    with pytest.raises(bf.RunError, match=SAYS + " made it, or it was deleted.*Run.delete"):
        ask(service)
    run = bf.open_run(bf.list_runs()["path"][0], client=service.client(api_key="sk-first"))
    run.delete()
    assert is_whole(service, ask(service))


def test_create_in_doubt_without_its_input_file_names_the_next_step(service):
    service.fault("create_batch", "reset_before")
    with pytest.raises(bf.RunPendingError) as raised:
        ask(service, timeout_seconds=0, settle_seconds=30)
    delete_the_newest_file(service)
    with pytest.raises(bf.RunError, match=SAYS + " made it, or it was deleted.*pass another name= and reuse="):
        ask(service)
    assert is_whole(service, ask(service, name="anew", reuse=raised.value.run.path))


def test_waits_for_a_file_that_appears_late(service):
    service.file_fault("gone", polls=3)
    uploaded(service)
    assert is_whole(service, ask(service, settle_seconds=20))
    assert service.calls()["create_file"] == 1


def test_create_in_doubt_is_settled_without_its_input_file(service):
    in_doubt(service)
    delete_the_newest_file(service)
    assert is_whole(service, ask(service))
    assert service.calls()["create_batch"] == 1


def test_files_past_retention_are_not_requested(service):
    downloaded(service)
    with testing.clock() as clock:
        clock.advance(31 * 86_400)
        run = bf.open_run(bf.list_runs()["path"][0], client=service.client(api_key="sk-second"))
        assert run.wait().succeeded == N
    assert once(service)


def test_visibility_is_checked_once(service):
    """The check costs a process one call, and none where something of the run was shown to it anyway."""
    downloaded(service)
    before = service.calls()
    run = bf.open_run(bf.list_runs()["path"][0], client=service.client(api_key="sk-first"))
    run.advance()
    assert service.calls()["retrieve_batch"] == before["retrieve_batch"] + 1
    assert run.wait().succeeded == N
    assert service.calls()["retrieve_batch"] - before["retrieve_batch"] <= 1 + 2 * 2
