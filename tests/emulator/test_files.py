"""Files: upload, list, retrieve, delete, content."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import openai
import pytest

from .conftest import create, jsonl, request, upload, wait

LINE = jsonl(request("a"))


def test_upload_returns_the_file_object(client):
    file = client.files.create(file=("some name.jsonl", LINE), purpose="batch")
    assert file.id.startswith("file-")
    assert len(file.id) == 29
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(LINE), "some name.jsonl", "batch")
    assert (file.status, file.expires_at) == ("processed", file.created_at + 2_592_000)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == LINE


def test_expires_after(client):
    after = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", LINE), purpose="batch", expires_after=after)
    assert file.expires_at == file.created_at + 3600
    for seconds, code in ((3599, "integer_below_min_value"), (2_592_001, "integer_above_max_value")):
        with pytest.raises(openai.BadRequestError) as refused:
            client.files.create(
                file=("a.jsonl", LINE), purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
            )
        assert (refused.value.code, refused.value.param) == (code, "expires_after.seconds")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("input.json", LINE),
        ("input.jsonl", b""),
        ("input.jsonl", b"garbage\n"),
        ("input.jsonl", b"[]\n"),
        ("upload", b"garbage\n"),
    ],
)
def test_invalid_batch_file_is_refused(client, name, content):
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=(name, content), purpose="batch")
    assert refused.value.body == {
        "message": "Invalid file format for Batch API. Must be .jsonl",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_name_without_an_extension_is_accepted(client):
    # The SDK's name for plain bytes, and another name without an extension.
    file = client.files.create(file=LINE, purpose="batch")
    assert (file.filename, file.status) == ("upload", "processed")
    assert wait(client, create(client, file.id).id).status == "completed"


def test_other_purposes_accept_any_file(client):
    assert client.files.create(file=("a.txt", b"hello"), purpose="user_data").expires_at is None
    with pytest.raises(openai.BadRequestError, match="Supported values are: 'assistants'"):
        client.files.create(file=("a.txt", b"hello"), purpose="nonsense")


def test_a_form_without_a_file_or_a_purpose_is_refused(service):
    boundary = "xyz"
    for field, missing in (("purpose", "file"), ("other", "file")):
        form = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\nbatch\r\n--{boundary}--\r\n'
        call = urllib.request.Request(
            service.base_url + "/files",
            data=form.encode(),
            headers={"Authorization": "Bearer x", "Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(call)
        with refused.value as reply:
            assert json.load(reply)["error"]["message"] == f"Missing required parameter: '{missing}'."


def test_file_size_limit(client, service):
    service.configure(max_file_bytes=len(LINE))
    assert upload(client, LINE).startswith("file-")
    for excess in (1, 3 << 20):
        with pytest.raises(openai.APIStatusError) as refused:
            upload(client, LINE + b" " * excess)
        assert refused.value.status_code == 413
        assert refused.value.body["type"] == "invalid_request_error"
    assert len(client.files.list().data) == 1


def test_lists_come_in_pages(client):
    ids = [upload(client, LINE, f"{i}.jsonl") for i in range(5)]
    other = client.files.create(file=("a.txt", b"hello"), purpose="user_data").id
    assert [file.id for file in client.files.list(limit=2)] == [other, *reversed(ids)]
    assert [file.id for file in client.files.list(limit=4, order="asc")] == [*ids, other]
    page = client.files.list(limit=2, purpose="batch", order="asc", after=ids[1])
    assert [file.id for file in page.data] == ids[2:4]
    assert (page.first_id, page.last_id, page.has_more) == (ids[2], ids[3], True)
    assert [file.id for file in client.files.list(purpose="user_data")] == [other]


def test_a_deleted_file_is_gone(client):
    file_id = upload(client, LINE)
    assert client.files.delete(file_id).to_dict() == {"id": file_id, "object": "file", "deleted": True}
    for call in (client.files.content, client.files.retrieve, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            call(file_id)
        assert refused.value.body == {
            "message": f"No such File object: {file_id}",
            "type": "invalid_request_error",
            "param": "id",
            "code": None,
        }
    assert client.files.list().data == []


def test_a_range_is_ignored(client):
    file_id = upload(client, LINE)
    reply = client.files.with_raw_response.content(file_id, extra_headers={"Range": "bytes=5-9"})
    assert (reply.status_code, reply.headers["content-length"]) == (200, str(len(LINE)))
    assert reply.content == LINE


def test_deleting_the_input_of_a_running_batch_does_not_stop_it(client, service):
    service.configure(progression="stepped")
    file_id = upload(client, LINE)
    batch = create(client, file_id)
    service.step()
    client.files.delete(file_id)
    service.step(3)
    assert client.batches.retrieve(batch.id).status == "completed"


def test_client_disconnect_during_an_upload_is_not_logged(client, service, caplog):
    host, port = service.base_url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as caller:
        head = "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 9000\r\n"
        caller.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        time.sleep(0.2)
    time.sleep(0.2)
    assert not client.files.list().data
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
