"""Other services with OpenAI's batch API: each with its own path, spellings, limits and oddities."""

from __future__ import annotations

import re
from datetime import datetime
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import get_args

import openai
import pytest

from batchframe.cli import _commands, main
from batchframe.emulator import Settings
from batchframe.emulator._batches.validation import validate
from batchframe.emulator._config.services import SERVICES, ServiceName
from batchframe.testing import emulator

from .conftest import CHAT, body, create, jsonl, read, request, upload, wait

PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"
ROWS = [request(f"row-{i}", body(f"Text number {i}")) for i in range(6)]
PREFIXES = ("/v1", "/openai/v1", "/v1/openai", "/openai", "/compatible-mode/v1", "/api/paas/v4")


@pytest.fixture(scope="module")
def any_service():
    with emulator(progression="instant") as service:
        yield service


@pytest.fixture
def service(any_service):
    any_service.reset()
    return any_service


def like(service, name, **settings):
    service.configure(service=name, **settings)
    return service.client(max_retries=0)


def seconds(moment):
    return moment if isinstance(moment, int) else datetime.fromisoformat(moment.replace(".0000000", "")).timestamp()


def errors_of(client, batch):
    """Return the errors from the raw JSON, as the SDK does not expect a bare list."""
    return client.batches.with_raw_response.retrieve(batch.id).http_response.json()["errors"]


def ended(client, *lines, endpoint=CHAT, **more):
    new_batch = client.batches.create(
        input_file_id=upload(client, jsonl(*lines)), endpoint=endpoint, **{"completion_window": "24h"} | more
    )
    return wait(client, new_batch.id)


def test_every_service_is_documented_and_a_command_line_choice():
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == {name: dialect.prefix for name, dialect in SERVICES.items()}
    assert tuple(SERVICES) == get_args(ServiceName) == tuple(_commands.SERVICES)
    assert all(dialect.name == name for name, dialect in SERVICES.items())


@pytest.mark.parametrize("name", SERVICES)
def test_service_answers_only_under_its_path(service, name):
    assert like(service, name).batches.list().data == []
    for prefix in PREFIXES:
        client = openai.OpenAI(api_key="k", base_url=service.endpoint + prefix, max_retries=0)
        with client:
            if service.base_url.endswith(prefix) and service.base_url == service.endpoint + prefix:
                assert client.files.list().data == []
            else:
                with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET"):
                    client.files.list()


def test_a_service_speaks_openais_dialect():
    with pytest.raises(TypeError, match="the service 'groq' speaks the dialect 'openai', not 'azure'"):
        with emulator("azure", service="groq"):
            pass
    with pytest.raises(TypeError, match="Invalid enum value 'grok'"):
        with emulator(service="grok"):
            pass


def test_the_command_line(monkeypatch, capsys):
    served = []
    monkeypatch.setattr("batchframe.emulator.serve", lambda host, port, settings, **_: served.append(settings))
    assert main(["emulator", "--service", "zhipu"]) == 0
    assert [settings.profile.prefix for settings in served] == ["/api/paas/v4"]
    assert main(["emulator", "--service", "zhipu", "--dialect", "azure"]) == 2
    assert "the service 'zhipu' speaks the dialect 'openai'" in capsys.readouterr().err


LIMITS = {
    "groq": (50_000, 100),
    "dashscope": (50_000, 500),
    "siliconflow": (5_000, 1 << 10),
    "moonshot": (50_000, 100),
    "zhipu": (50_000, 100),
    "nebius": (5_000_000, 10 << 10),
    "doubleword": (50_000, 200),
    "parasail": (50_000, 500),
    "perplexity": (50_000, 200),
    "deepinfra": (50_000, 200),
    "novita": (50_000, 200),
}


@pytest.mark.parametrize("name", SERVICES)
def test_limits(name):
    settings = Settings(service=name)
    requests, megabytes = LIMITS[name]
    assert (settings.effective_max_requests, settings.effective_max_file_bytes) == (requests, megabytes << 20)
    assert Settings(service=name, max_requests=3, max_file_bytes=5).effective_max_requests == 3
    assert settings.token_limit("m") is None
    assert Settings(service=name, enqueued_token_limits={"m": 5}).token_limit("m") == 5


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("window", ["24h", "48h", "7d", "1h", "12h", "336h", "337h", "24", ""])
def test_windows(service, name, window):
    known = {
        "groq": {"24h", "7d"},
        "siliconflow": {"24h", "48h", "336h"},
        "moonshot": {"24h", "12h", "7d"},
        "doubleword": {"24h", "1h"},
        "novita": {"48h"},
    }
    client = like(service, name, models=["m"])
    endpoint = next(iter(SERVICES[name].endpoints))
    parameters = {"input_file_id": "file-x", "endpoint": endpoint, "completion_window": window}
    if window in known.get(name, {"24h"}):
        batch = client.batches.create(**parameters)
        created, expires = map(seconds, (batch.created_at, batch.expires_at))
        hours = {"d": 24, "h": 1}[window[-1]] * int(window[:-1])
        assert expires - created == pytest.approx(hours * 3_600, abs=1)
    else:
        with pytest.raises(openai.BadRequestError, match=r"Supported values are: '.*(24h|48h)'") as refused:
            client.batches.create(**parameters)
        assert refused.value.param == "completion_window"


# --------------------------------------------------------------------------------------------------------------- groq


def test_groq_ids_and_pages(service):
    client = like(service, "groq")
    file_id = upload(client, jsonl(*ROWS))
    batch_ids = [create(client, file_id).id for _ in range(5)]
    assert re.fullmatch("file_01j[0-9a-z]{23}", file_id)
    assert all(re.fullmatch("batch_01j[0-9a-z]{23}", batch_id) for batch_id in batch_ids)
    listed, cursor = [], {}
    for size in (2, 2, 1):
        page = client.batches.list(limit=2, extra_query=cursor)
        assert len(page.data) == size
        listed += [batch.id for batch in page.data]
        cursor = {"cursor": page.paging["next_cursor"]}
    assert (listed, cursor) == (batch_ids[::-1], {"cursor": None})
    selection = client.get(f"/batches?id={batch_ids[0]}&id={batch_ids[3]}", cast_to=object)
    assert [batch["id"] for batch in selection["data"]] == [batch_ids[3], batch_ids[0]]
    with pytest.raises(openai.BadRequestError, match="maximum length 200"):
        client.get("/batches?" + "id=x&" * 201, cast_to=object)


def test_groq_goes_on_without_bad_lines(service):
    client = like(service, "groq")
    batch = ended(client, ROWS[0], ROWS[0], b"{", {**ROWS[1], "method": "GET"}, *ROWS[2:])
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 5, 5)
    assert [(error["code"], error["line"]) for error in errors_of(client, batch)] == [
        ("duplicate_custom_id", 2),
        ("invalid_json_line", 3),
        ("invalid_method", 4),
    ]
    assert {line["custom_id"] for line in read(client, batch.output_file_id)} == {f"row-{i}" for i in (0, 2, 3, 4, 5)}
    assert service.ledger()["executions"] == 5


@pytest.mark.parametrize("lines", [[b"{"], [{**ROWS[0], "url": "/v1/x"}] * 3, [{**ROWS[0], "body": body(model="x")}]])
def test_groq_fails_when_no_line_is_good(service, lines):
    client = like(service, "groq")
    lines = [ROWS[0], *lines] if lines == [b"{"] else lines
    service.configure(max_errors=1 if len(lines) == 2 else 100)
    batch = ended(client, *lines)
    assert batch.status == "failed"
    assert isinstance(errors_of(client, batch), list)
    assert service.ledger()["executions"] == 0


def test_groq_leaves_the_same_lines_out_after_a_restart(tmp_path):
    lines = [*ROWS[:2], b"{", *ROWS[2:]]
    with emulator(service="groq", progression="stepped", execution_steps=6, state_dir=tmp_path) as service:
        client = service.client()
        batch_id = create(client, upload(client, jsonl(*lines))).id
        service.step(3)
        assert client.batches.retrieve(batch_id).request_counts.completed == 2
    with emulator(service="groq", progression="instant", state_dir=tmp_path) as service:
        batch = wait(service.client(), batch_id)
        assert batch.request_counts.completed == 6
        assert len(read(service.client(), batch.output_file_id)) == 6


# ---------------------------------------------------------------------------------------------------------- the others


def test_dashscope_writes_failures_into_the_output_file(service):
    client = like(service, "dashscope")
    service.row_fault("status", status=500, custom_ids=["row-1"])
    batch = ended(client, *ROWS, request("bad", body("x", temperature=99)))
    assert (batch.request_counts.completed, batch.request_counts.failed, batch.error_file_id) == (7, 0, None)
    lines = {line["custom_id"]: line["response"]["status_code"] for line in read(client, batch.output_file_id)}
    assert lines == {f"row-{i}": 200 for i in range(6)} | {"row-1": 500, "bad": 400}
    assert re.fullmatch("batch_[0-9a-f-]{36}", batch.id)
    assert batch.input_file_id.startswith("file-batch-")


def test_dashscope_has_its_own_code_for_a_wrong_url(service):
    batch = ended(like(service, "dashscope"), {**ROWS[0], "url": "/v1/embeddings"})
    assert [(error.code, error.line) for error in batch.errors.data] == [("url_not_found", 1)]


def trial(number, **more):
    return {**request(f"row-{number}", body("x", model="batch-test-model")), "url": "/v1/chat/ds-test", **more}


def test_dashscope_trial_endpoint(service):
    client = like(service, "dashscope")

    def codes(*lines):
        batch = ended(client, *lines, endpoint="/v1/chat/ds-test")
        return [error.code for error in batch.errors.data] if batch.errors else batch.request_counts.completed

    assert codes(*map(trial, range(100))) == 100
    assert codes(*map(trial, range(101))) == ["batch_request_limit_exceeded"]
    assert codes(trial(0, body=body("x" * (1 << 20), model="batch-test-model"))) == ["invalid_request"]
    assert codes(trial(0, body=body("x"))) == ["model_not_found"]
    assert codes(trial(0, url=CHAT)) == ["url_not_found"]
    batch = ended(client, request("row-0", body("x", model="batch-test-model")))
    assert [error.code for error in batch.errors.data] == ["model_not_found"]


def test_siliconflow_requires_a_user_message_last(service):
    client = like(service, "siliconflow")
    conversation = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    batch = ended(client, ROWS[0], request("told", body("x", **conversation)))
    assert [(error.code, error.param, error.line) for error in batch.errors.data] == [
        ("invalid_request", "body.messages", 2)
    ]
    with pytest.raises(openai.BadRequestError, match="Supported values are: '/v1/chat/completions'"):
        client.batches.create(input_file_id="f", endpoint="/v1/embeddings", completion_window="24h")


def test_moonshot_has_its_own_models(service):
    client = like(service, "moonshot")
    for model in ("kimi-k2.5", "kimi-k2.6", "kimi-k2.7-code"):
        batch = ended(client, request("row-0", body("x", model=model)))
        assert (batch.status, batch.model) == ("completed", model)
    for model in ("kimi-k3", "gpt-4o-mini"):
        batch = ended(client, request("row-0", body("x", model=model)))
        assert batch.errors.data[0].code == "model_not_found"


def zhipu(number, url="/v4/chat/completions"):
    return {**ROWS[number], "url": url}


def test_zhipu_has_the_version_in_the_endpoint(service):
    client = like(service, "zhipu")
    with pytest.raises(openai.BadRequestError, match=r"'/v1/chat/completions'. Supported .* '/v4/chat/completions'"):
        create(client, "file-x")
    batch = ended(client, zhipu(0), zhipu(1), endpoint="/v4/chat/completions")
    assert (batch.status, batch.endpoint) == ("completed", "/v4/chat/completions")
    batch = ended(client, zhipu(0), zhipu(1, CHAT), endpoint="/v4/chat/completions")
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_url", 2)]


@pytest.mark.parametrize(("more", "is_there"), [({}, False), ({"auto_delete_input_file": False}, True)])
def test_zhipu_deletes_input_files_by_default(service, more, is_there):
    client = like(service, "zhipu")
    batch = ended(client, zhipu(0), endpoint="/v4/chat/completions", extra_body=more)
    assert len(read(client, batch.output_file_id)) == 1
    assert any(file.id == batch.input_file_id for file in client.files.list()) is is_there


def test_only_zhipu_knows_auto_delete_input_file(service):
    parameters = {"input_file_id": "f", "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'auto_delete_input_file'"):
        like(service, "parasail").batches.create(**parameters, extra_body={"auto_delete_input_file": True})
    with pytest.raises(openai.BadRequestError, match="expected a boolean, but got a string"):
        like(service, "zhipu").batches.create(
            **parameters | {"endpoint": "/v4/chat/completions"}, extra_body={"auto_delete_input_file": "no"}
        )


def test_upstream_gets_the_canonical_endpoint(service):
    validation = validate(BytesIO(jsonl(zhipu(0))), "/v4/chat/completions", Settings(service="zhipu"), Event())
    assert not validation.errors
    assert SERVICES["zhipu"].endpoints[zhipu(0)["url"]] == CHAT


def responses(number, **more):
    return {**request(f"row-{number}", {"model": "gpt-4o-mini", "input": "x"}), "url": "/v1/responses", **more}


def test_perplexity_validates_uploads(service):
    client = like(service, "perplexity")
    for bad, says in (
        ([responses(0), b"{"], "Line 2: This line is not parseable"),
        ([responses(0), responses(0)], "Line 2: The custom_id 'row-0'"),
        ([responses(0, url=CHAT)], "Line 1: The URL provided"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            upload(client, jsonl(*bad))
    assert client.files.list().data == []
    batch = ended(client, responses(0), responses(1), endpoint="/v1/responses", metadata={"a": "b"})
    assert (batch.status, batch.request_counts.completed, batch.metadata) == ("completed", 2, {"a": "b"})
    with pytest.raises(openai.BadRequestError, match="Supported values are: '/v1/responses'"):
        client.batches.create(input_file_id="f", endpoint=CHAT, completion_window="24h")


def test_perplexity_takes_no_expiry(service):
    client = like(service, "perplexity")
    expiry = {"anchor": "created_at", "seconds": 90_000}
    with pytest.raises(openai.BadRequestError, match="Unsupported parameter: 'expires_after'") as refused:
        client.files.create(file=("a.jsonl", jsonl(responses(0))), purpose="batch", expires_after=expiry)
    assert refused.value.param == "expires_after"
    with pytest.raises(openai.BadRequestError, match="Unsupported parameter: 'output_expires_after'"):
        client.batches.create(
            input_file_id="f", endpoint="/v1/responses", completion_window="24h", output_expires_after=expiry
        )


def test_perplexity_idempotency_key(service):
    parameters = {"endpoint": "/v1/responses", "completion_window": "24h"}

    def batch_id(client, key, number=0):
        file_id = upload(client, jsonl(responses(number)))
        return client.batches.create(**parameters, input_file_id=file_id, extra_headers={"Idempotency-Key": key}).id

    service.configure(isolate="key")
    client, other = like(service, "perplexity"), service.client(api_key="other")
    first = batch_id(client, "a")
    assert batch_id(client, "a", 1) == first
    assert len({first, batch_id(client, "b"), batch_id(other, "a")}) == 3
    service.reset()
    assert batch_id(like(service, "perplexity"), "a") != first
    plain = like(service, "deepinfra")
    chat = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": upload(plain, jsonl(ROWS[0]))}
    assert len({plain.batches.create(**chat, extra_headers={"Idempotency-Key": "a"}).id for _ in range(2)}) == 2


def test_deepinfra_has_three_endpoints(service):
    client = like(service, "deepinfra")
    assert service.base_url.endswith("/v1/openai")
    embed = {**request("a", {"model": "text-embedding-3-small", "input": "x"}), "url": "/v1/embeddings"}
    assert ended(client, embed, endpoint="/v1/embeddings").request_counts.completed == 1
    with pytest.raises(
        openai.BadRequestError, match=r"Supported values are: '/v1/chat/completions', '/v1/completions', a"
    ):
        client.batches.create(input_file_id="f", endpoint="/v1/responses", completion_window="24h")


def test_novita_oddities(service):
    client = like(service, "novita")
    file_id = upload(client, jsonl(*ROWS))
    assert client.files.retrieve(file_id).expires_at == client.files.retrieve(file_id).created_at + 15 * 86_400
    new_batch = client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="48h", metadata={"dropped": "here"}
    )
    assert (new_batch.status, new_batch.output_file_id, new_batch.metadata) == ("VALIDATING", "", None)
    wait(client, new_batch.id, lambda batch: batch.status == "COMPLETED")
    shown = client.batches.with_raw_response.retrieve(new_batch.id).http_response.json()
    assert {name: shown[name] for name in ("total", "completed", "failed", "request_counts")} == {
        "total": 6, "completed": 6, "failed": 0, "request_counts": None
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", shown["created_at"])
    bad = client.batches.create(
        input_file_id=upload(client, jsonl(ROWS[0], ROWS[0])), endpoint=CHAT, completion_window="48h"
    )
    wait(client, bad.id, lambda batch: batch.status == "FAILED")
    assert errors_of(client, bad).startswith("line 2: duplicate_custom_id: ")


def test_dashscope_line_size_limit(service):
    batch = ended(like(service, "dashscope"), ROWS[0], request("long", body("x" * (6 << 20))))
    assert [(error.code, error.line) for error in batch.errors.data] == [("invalid_request", 2)]
