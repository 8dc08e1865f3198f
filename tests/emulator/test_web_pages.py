"""Web pages in a browser on this machine cannot reach the emulator, and others cannot read its state."""

from __future__ import annotations

import http.client
import json
import os
import stat
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from batchframe.cli import main
from batchframe.emulator import create_app, serve
from batchframe.emulator._config.backing import Backing
from batchframe.emulator._config.host_names import HostNames
from batchframe.emulator._http import server
from batchframe.emulator._http.server import endpoint, listen
from batchframe.testing import emulator

from .conftest import body, create, ended, jsonl, request, upload, wait

LEDGER = "/_emulator/ledger"


def address(service):
    return urlsplit(service.endpoint).netloc


def call(service, method, path, *, host=None, data=None, **headers):
    """Call the service under a host name, as a browser that resolved it to this machine; return status and JSON."""
    connection = http.client.HTTPConnection(address(service))
    try:
        sent = {"Host": host or address(service), **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, data, sent)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def refusal(answer):
    status, reply = answer
    assert status == 403, reply
    return reply["error"]["message"]


# ----------------------------------------------------------------------------------------------- calls by web pages


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "http://[", ""]
)
def test_web_page_cannot_control_the_emulator(client, service, origin):
    """A POST of plain text needs no preflight: the browser sends it, and only hides the reply from the page."""
    service.fault("list_batches", "status", times=None, skip=1000)
    ended(client, request("a"))
    simple = {"Origin": origin, "Content_Type": "text/plain"}
    for path, data in [
        ("/_emulator/reset", None),
        ("/_emulator/step", None),
        ("/_emulator/expire", "{}"),
        ("/_emulator/faults", '{"call": "create_batch", "kind": "status"}'),
        ("/v1/files", "nothing"),
        ("/v1/batches", "{}"),
        ("/nowhere", "{}"),
    ]:
        assert f"(origin: {origin!r})" in refusal(call(service, "POST", path, data=data, **simple))
    assert service.ledger()["executions"] == 1
    assert [fault["call"] for fault in call(service, "GET", "/_emulator/faults")[1]] == ["list_batches"]
    assert service.calls()["create_batch"] == 1


def test_a_preflight_is_refused(service):
    """So no call with a key, and no PATCH or DELETE, can follow."""
    asks = {"Access_Control_Request_Method": "PATCH", "Access_Control_Request_Headers": "authorization"}
    assert "evil.example" in refusal(call(service, "OPTIONS", LEDGER, Origin="https://evil.example", **asks))


def test_image_of_a_page_cannot_use_up_a_fault(service):
    """Images and scripts are fetched without an Origin; another header tells where the page is from."""
    service.fault("list_batches", "status")
    image = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}
    refusal(call(service, "GET", "/v1/batches", **image))
    assert service.calls() == {}
    assert len(call(service, "GET", "/_emulator/faults")[1]) == 1


def test_typed_address_shows_the_ledger(service):
    assert call(service, "GET", LEDGER, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate")[0] == 200


def test_a_refused_upload_is_read_to_its_end(service):
    """So the caller gets the refusal, not a broken connection."""
    data = b"x" * 3_000_000
    assert "evil.example" in refusal(call(service, "POST", "/v1/files", data=data, Origin="https://evil.example"))


# ------------------------------------------------------------------------------------------------------ a rebound name


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost",
        "192.168.1.5", "0.0.0.0", "[2001:db8::1]", "127.0.0.1,evil.example", "[::1", "",
    ],
)  # fmt: skip
def test_a_rebound_name_is_refused(service, host):
    """The page then has the same origin, and could read every prompt; only the host name reveals it."""
    own = {"host": host or " ", "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
    assert refusal(call(service, "GET", LEDGER, **own))
    assert refusal(call(service, "POST", "/_emulator/reset", **own))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.8.9.10:80", "[::1]:8080"])
def test_names_of_this_machine(service, host):
    assert call(service, "GET", LEDGER, host=host)[0] == 200


def test_refusal_names_the_option(service):
    message = refusal(call(service, "GET", "/v1/batches", host="batches.example:8080"))
    assert "'batches.example'" in message
    assert "--allowed-host batches.example" in message


def test_azure_refuses_in_its_own_envelope():
    with emulator("azure") as service:
        status, reply = call(service, "GET", "/openai/batches", host="evil.example")
        assert (status, set(reply["error"])) == (403, {"code", "message"})


def test_allowed_hosts():
    with emulator(allowed_hosts=["Batches.example", "192.168.1.5", "2001:DB8:0::1"]) as service:
        for host in ("batches.example", "BATCHES.example.:99", "192.168.1.5:1", "[2001:db8::1]:1"):
            assert call(service, "GET", LEDGER, host=host)[0] == 200
        assert call(service, "GET", LEDGER, host="a.batches.example")[0] == 403
        # A page under an allowed name is still refused, unless it is the service's own.
        assert call(service, "GET", LEDGER, host="batches.example", Origin="http://other.batches.example")[0] == 403
        assert call(service, "GET", LEDGER, host="batches.example:1", Origin="http://batches.example:1")[0] == 200


@pytest.mark.parametrize("wrong", ["http://batches.example", "batches.example:8080", "*", "", "a b"])
def test_invalid_allowed_host(wrong):
    with pytest.raises(ValueError, match="allowed_hosts: expected"):
        Backing(allowed_hosts=[wrong])


def test_allowed_hosts_must_be_a_list():
    with pytest.raises(ValueError, match=r"allowed_hosts: expected a list .* got 'batches\.example'"):
        Backing(allowed_hosts="batches.example")


@pytest.mark.parametrize("option", [["--allowed-host", "http://x"], ["--upstream", "x"]])
def test_command_reports_a_bad_option(option, capsys):
    assert main(["emulator", "--port", "0", *option]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(("error: allowed_hosts: expected", "error: upstream: expected"))
    assert stderr.count("\n") == 1


def test_command_takes_allowed_hosts(monkeypatch):
    """The command passes the names to serve(); other tests check that this allows them."""
    calls = []
    monkeypatch.setattr("batchframe.emulator.serve", lambda *_, **options: calls.append(options))
    assert main(["emulator", "--allowed-host", "a.example", "--allowed-host", "b.example"]) == 0
    assert calls[0]["allowed_hosts"] == ("a.example", "b.example")


def test_command_reports_a_folder_in_use(tmp_path, capsys):
    with emulator(state_dir=tmp_path):
        assert main(["emulator", "--port", "0", "--state-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: another emulator works in {tmp_path}\n"


def test_control_plane_cannot_allow_hosts(service):
    assert call(service, "PATCH", "/_emulator/settings", data='{"allowed_hosts": ["evil.example"]}')[0] == 400


@pytest.mark.parametrize(
    ("header", "local", "is_ours"),
    [
        ("192.168.1.5:8080", "192.168.1.5", True),
        ("192.168.1.5:8080", "::ffff:192.168.1.5", True),
        ("192.168.1.6:8080", "192.168.1.5", False),
        ("[fe80:0::1]", "fe80::1", True),
        ("[::ffff:127.0.0.1]", "::ffff:192.168.1.5", True),
        ("emulator", "emulator", True),
        ("emulator", None, False),
    ],
)
def test_reached_address_is_allowed(header, local, is_ours):
    """A server on all addresses can be reached by each of them; no page can turn its name into an address."""
    assert HostNames().include(header, local) is is_ours


def test_bound_address_is_allowed():
    """The line at the start shows this address, so it must work."""
    with listen("0.0.0.0", 0) as sock:
        host = urlsplit(endpoint(sock)).netloc
    assert HostNames(["0.0.0.0"]).include(host, "127.0.0.1")


def test_all_addresses_without_a_name(monkeypatch):
    """An empty host binds all addresses, as 0.0.0.0 does."""
    monkeypatch.setattr(server._Server, "run", lambda server, sockets: sockets[0].close())
    serve("", 0)


def test_application_under_another_server():
    with TestClient(create_app(allowed_hosts=["batches.example"]), base_url="http://127.0.0.1:1") as own:
        assert own.get(LEDGER).status_code == own.get(LEDGER, headers={"Host": "batches.example"}).status_code == 200
        assert own.get(LEDGER, headers={"Host": "evil.example"}).status_code == 403
        assert own.get(LEDGER, headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_call_without_a_host(service):
    """An HTTP/1.0 call, which a probe makes and no browser does."""
    connection = http.client.HTTPConnection(address(service))
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"
    connection.putrequest("GET", "/_emulator/health", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()


# --------------------------------------------------------------------------------------------------- file modes


@pytest.mark.skipif(os.name == "nt", reason="modes of files")
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "left by an earlier version"])
def test_state_is_readable_only_by_its_owner(tmp_path, is_there):
    root = tmp_path / "below" / "state"
    if is_there:
        for name in ("files", "work", "scratch", "file-records", "batch-records"):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name).chmod(0o755)
    old = os.umask(0o022)
    try:
        with emulator(state_dir=root, seconds={"in_progress": 60.0}) as service:
            client = service.client()
            batch = create(client, upload(client, jsonl(request("a", body("a secret")))))
            wait(client, batch.id, lambda now: now.status == "in_progress")
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    finally:
        os.umask(old)
    folders = {path.relative_to(root).as_posix(): mode for path, mode in modes.items() if path.is_dir()}
    assert {"files", "work", "scratch", "file-records", "batch-records", f"work/{batch.id}"} <= folders.keys()
    assert set(folders.values()) == {0o700}
    # The contents are private even if the folder itself is the user's and open to others.
    assert {mode & 0o077 for path, mode in modes.items() if path.parent == root} == {0}
    assert is_there or stat.S_IMODE(root.stat().st_mode) == 0o700
