"""Azure's two dialects: paths, keys, versions, files, object shapes, lines, lists."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import openai
import pytest

from batchframe.testing import emulator

from .conftest import body, create, jsonl, read, request, upload, wait

VERSION = "api-version=2024-10-21"
ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(6)]


@pytest.fixture(scope="module", params=["azure", "azure-v1"])
def either(request):
    with emulator(request.param) as service:
        yield service


@pytest.fixture
def service(either):
    either.reset()
    return either


@pytest.fixture
def client(service):
    return service.client(max_retries=0)


@pytest.fixture
def is_classic(service):
    return service.base_url.endswith("/openai")


@pytest.fixture(scope="module")
def one_classic():
    with emulator("azure") as service:
        yield service


@pytest.fixture
def classic(one_classic):
    one_classic.reset()
    return one_classic


def bare(service, path, method="GET", data=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in (headers or {"api_key": "x"}).items()}
    http_request = urllib.request.Request(service.endpoint + path, method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(http_request) as reply:
            return reply.status, json.load(reply), reply.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused), refused.headers


def path(service, rest):
    prefix = service.base_url.removeprefix(service.endpoint)
    joint = "&" if "?" in rest else "?"
    return f"{prefix}{rest}{joint}{VERSION}" if prefix == "/openai" else prefix + rest


# ------------------------------------------------------------------------------------------------- paths and headers


def test_client_matches_the_dialect(client, service, is_classic):
    assert isinstance(client, openai.AzureOpenAI) == is_classic
    assert client.batches.list().data == []
    assert service.calls() == {"list_batches": 1}


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (f"/openai/batches?{VERSION}", 200, None),
        ("/openai/batches", 404, "404"),
        ("/openai/batches?api-version=", 404, "404"),
        ("/openai/batches?api-version=2023-05-15", 404, "404"),
        ("/openai/batches?api-version=nonsense", 404, "404"),
        ("/openai/batches?api-version=2024-07-01-preview", 200, None),
        (f"/v1/batches?{VERSION}", 404, "404"),
        (f"/openai/v1/batches?{VERSION}", 404, "404"),
        (f"/openai/deployments/gpt-4o/batches?{VERSION}", 404, "404"),
        (f"/openai/deployments/gpt-4o/chat/completions?{VERSION}", 501, "NotImplemented"),
    ],
)
def test_dated_versions_and_paths(classic, target, status, code):
    actual, reply, _ = bare(classic, target)
    assert actual == status
    assert code is None or (set(reply["error"]) == {"code", "message"} and reply["error"]["code"] == code)


def test_v1_needs_no_version_and_refuses_a_dated_one():
    with emulator("azure-v1") as service:
        assert bare(service, "/openai/v1/batches")[0] == 200
        assert bare(service, "/openai/v1/batches?api-version=preview")[0] == 200
        assert bare(service, f"/openai/v1/batches?{VERSION}")[0] == 400
        assert bare(service, f"/openai/batches?{VERSION}")[0] == 404
        assert bare(service, "/v1/batches")[0] == 404
        assert bare(service, "/openai/v1/responses", "POST")[0] == 501


def test_openai_refuses_azure_features():
    with emulator() as service:
        assert bare(service, "/v1/batches")[0] == 401
        for target in ("/openai/v1/batches", f"/openai/batches?{VERSION}"):
            status, reply, _ = bare(service, target, authorization="Bearer x")
            assert (status, set(reply["error"])) == (404, {"message", "type", "param", "code"})


def test_api_keys(service):
    target = path(service, "/batches")
    assert bare(service, target, authorization="Bearer token")[0] == 200
    status, reply, _ = bare(service, target, accept="*/*")
    assert (status, reply["error"]["code"]) == (401, "401")
    assert reply["error"]["message"].startswith("Access denied due to invalid subscription key or wrong API endpoint.")
    service.configure(api_keys=["right"])
    assert [bare(service, target, api_key=key)[0] for key in ("wrong", "right")] == [401, 200]


# ------------------------------------------------------------------------------------------------------------- files


def test_an_upload(client, service, is_classic):
    form = "--b\r\n".join(
        [
            "",
            'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
            'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + jsonl(*ROWS).decode() + "\r\n",
        ]
    )
    headers = {"api_key": "x", "content_type": "multipart/form-data; boundary=b"}
    status, file, replied = bare(service, path(service, "/files"), "POST", (form + "--b--\r\n").encode(), **headers)
    assert re.fullmatch("file-[0-9a-f]{32}", file["id"])
    assert file["expires_at"] is None
    if is_classic:
        assert (status, file["status"]) == (201, "pending")
        assert replied["location"] == f"{service.endpoint}/openai/files/{file['id']}?{VERSION}"
    else:
        assert (status, file["status"], replied["location"]) == (200, "processed", None)
    assert client.files.retrieve(file["id"]).status == "processed"


def test_a_pending_file(client, service):
    service.configure(pending_polls=2)
    file_id = upload(client, jsonl(*ROWS))
    assert client.files.retrieve(file_id).status == "pending"
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, file_id)
    assert refused.value.body["message"] == (
        f"The input file '{file_id}' is in 'pending' state. Only files with status 'Processed' are accepted for batch "
        "inferencing. Please check the file status and try again"
    )
    assert client.batches.list().data == []
    assert client.files.retrieve(file_id).status == "processed"
    assert wait(client, create(client, file_id).id).status == "completed"


def test_null_file_status(client, service):
    service.configure(oddities=["null_file_status"], pending_polls=1)
    file = client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch")
    assert file.status is None
    assert [client.files.retrieve(file.id).status for _ in range(2)] == [None, "processed"]


def test_a_file_that_ends_in_error_is_refused(client, service):
    service.file_fault("error", polls=1)
    file_id = upload(client, jsonl(*ROWS))
    assert [client.files.retrieve(file_id).status for _ in range(2)] == ["pending", "error"]
    with pytest.raises(openai.BadRequestError, match="is in 'error' state"):
        create(client, file_id)


@pytest.mark.parametrize("spelling", ["expires_after[{}]", "expires_after.{}"])
@pytest.mark.parametrize(("seconds", "is_good"), [(1_209_600, True), (2_592_000, True), (3_600, False)])
def test_expires_after_in_both_spellings(client, spelling, seconds, is_good):
    fields = {spelling.format("anchor"): "created_at", spelling.format("seconds"): seconds}
    if not is_good:
        with pytest.raises(openai.BadRequestError, match="1209600"):
            client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch", extra_body=fields)
        return
    file = client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch", extra_body=fields)
    assert file.expires_at == file.created_at + seconds


def test_file_quota(client, service):
    service.configure(files_without_expiry=2)
    file_ids = [upload(client, jsonl(*ROWS)) for _ in range(2)]
    with pytest.raises(openai.BadRequestError, match="quota for files without expiry is reached"):
        upload(client, jsonl(*ROWS))
    life = {"expires_after": {"anchor": "created_at", "seconds": 1_209_600}}
    client.files.create(file=("a.jsonl", jsonl(*ROWS)), purpose="batch", extra_body=life)
    client.files.delete(file_ids[0])
    upload(client, jsonl(*ROWS))


# ------------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("endpoint", ["/chat/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("url", ["/chat/completions", "/v1/chat/completions"])
def test_a_batch(client, is_classic, endpoint, url):
    file_id = upload(client, jsonl(*({**row, "url": url} for row in ROWS)))
    new_batch = client.batches.create(
        input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"}
    )
    batch = wait(client, new_batch.id)
    assert re.fullmatch("batch_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", batch.id)
    assert (batch.status, batch.endpoint, batch.metadata) == ("completed", endpoint, {"a": "b"})
    assert (batch.usage is None, batch.model is None) == (is_classic, is_classic)
    assert client.files.content(batch.error_file_id).content == b""
    assert len(batch.output_file_id) == len("file-") + 36
    assert client.files.retrieve(batch.output_file_id).expires_at is None
    lines = read(client, batch.output_file_id)
    assert {line["custom_id"] for line in lines} == {row["custom_id"] for row in ROWS}
    for line in lines:
        assert list(line) == ["custom_id", "response", "error"]
        assert list(line["response"]) == ["body", "request_id", "status_code"]
        assert len(line["response"]["request_id"]) == 36
        got = line["response"]["body"]
        assert got["model"] == "gpt-4o-mini-2024-07-18"
        assert got["prompt_filter_results"][0]["content_filter_results"]["hate"] == {
            "filtered": False,
            "severity": "safe",
        }
        assert got["choices"][0]["content_filter_results"]["violence"]["filtered"] is False
        assert ("prompt_tokens_details" in got["usage"]) != is_classic


def test_deployments(client, service):
    service.configure(deployments={"my-batch": "gpt-4o", "real-time": "gpt-4o"}, standard_deployments=["real-time"])

    def run(model):
        return wait(client, create(client, upload(client, jsonl(request("a", {**body(), "model": model})))).id)

    batch = run("my-batch")
    [line] = read(client, batch.output_file_id)
    assert line["response"]["body"]["model"] == "gpt-4o-2024-08-06"
    assert run("gpt-4o").errors.data[0].code == "model_not_found"
    [error] = run("real-time").errors.data
    assert (error.code, "SKU" in error.message) == ("invalid_request", True)


def test_unknown_deployment_is_refused_at_create(client, service):
    service.configure(errors_at_create=True)
    file_id = upload(client, jsonl(request("a", {**body(), "model": "nonsense"})))
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, file_id)
    reply = refused.value.response.json()
    assert set(reply) == {"errors"}
    assert reply["errors"]["data"][0]["code"] == "model_not_found"
    assert client.batches.list().data == []


def test_a_failed_and_a_filtered_row(client, service):
    service.row_fault("content_filter", custom_ids=["row-1"])
    batch = wait(client, create(client, upload(client, jsonl(*ROWS, request("bad", body(foo=1))))).id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (5, 2)
    by_id = {line["custom_id"]: line for line in read(client, batch.error_file_id)}
    assert {line["error"] for line in by_id.values()} == {None}
    filtered = by_id["row-1"]["response"]
    assert (filtered["status_code"], filtered["body"]["error"]["code"]) == (400, "content_filter")
    assert filtered["body"]["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert by_id["bad"]["response"]["body"]["error"]["message"] == "Unknown parameter: 'foo'."
    assert service.ledger()["billed"] == 5


def test_batch_runs_on_after_its_window(client, service):
    service.configure(window_seconds=0.01, seconds={"in_progress": 0.3})
    batch = wait(client, create(client, upload(client, jsonl(*ROWS))).id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 6)


def test_cancelled_batch_keeps_partial_results(client, service):
    service.configure(progression="stepped")
    batch = create(client, upload(client, jsonl(*ROWS)))
    service.step(2)
    assert client.batches.cancel(batch.id).status == "cancelling"
    service.step()
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, len(read(client, batch.output_file_id))) == ("cancelled", 3)
    assert {line["error"]["code"] for line in read(client, batch.error_file_id)} == {"batch_cancelled"}


def test_refusals_have_azures_envelope(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.batches.retrieve("batch_x")
    assert set(refused.value.response.json()["error"]) == {"code", "message"}
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id="f", endpoint="/nonsense", completion_window="24h")
    with pytest.raises(openai.InternalServerError) as refused:
        create(client, None, extra_body={"input_blob": "https://x", "output_folder": {"url": "https://x"}})
    assert refused.value.status_code == 501


def test_keys_are_in_alphabetical_order(classic):
    client = classic.client()
    create(client, upload(client, jsonl(*ROWS)))
    [batch] = bare(classic, f"/openai/batches?{VERSION}")[1]["data"]
    assert list(batch) == sorted(batch)


# -------------------------------------------------------------------------------------------------------------- lists


def listed(service, **query):
    target = path(service, "/batches?" + urllib.parse.urlencode({f"${k}": v for k, v in query.items()}))
    status, reply, _ = bare(service, target)
    return [batch["id"] for batch in reply["data"]] if status == 200 else status


def test_filter_and_order(client, service):
    good, bad = upload(client, jsonl(*ROWS)), upload(client, b"{}\n")
    first, second = create(client, good), create(client, bad)
    time.sleep(1.1)
    third = create(client, good)
    for batch in (first, second, third):
        wait(client, batch.id)
    assert listed(service) == [third.id, second.id, first.id]
    assert listed(service, orderby="created_at asc") == [first.id, second.id, third.id]
    assert listed(service, orderby="created_at desc") == [third.id, second.id, first.id]
    assert listed(service, filter="status eq 'Completed'") == [third.id, first.id]
    assert listed(service, filter="status ne 'Completed'") == [second.id]
    assert listed(service, filter=f"created_at gt {second.created_at}") == [third.id]
    assert listed(service, filter=f"created_at lt {third.created_at} and status eq 'Failed'") == [second.id]
    both = f"created_at gt {first.created_at - 1} and created_at lt {third.created_at} and status eq 'Completed'"
    assert listed(service, filter=both, orderby="created_at asc") == [first.id]
    wrong = (
        {"filter": "status eq Completed"},
        {"filter": "status eq 'Done'"},
        {"filter": "id eq 'x'"},
        {"orderby": "id"},
    )
    assert [listed(service, **query) for query in wrong] == [400] * 4


def test_paging(client):
    batch_ids = [create(client, upload(client, jsonl(*ROWS))).id for _ in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == batch_ids[::-1]
