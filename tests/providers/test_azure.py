"""Azure OpenAI through the same calls: classic and v1, with everything it does differently."""

# ruff: noqa: E501  (a table reads best a case a line)

from __future__ import annotations

import importlib.util
import json

import openai
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batchframe as bf
from batchframe._batches import submit
from batchframe._core.lenient import moment
from batchframe._providers import azure as _azure
from batchframe._providers.openai import _remote_batch, map_error
from batchframe._providers.service import Service

transport = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")  # the SDK's own
ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.05, "settle_seconds": 0.5}
FRAME = pl.DataFrame({"text": [f"text {n}" for n in range(40)]})


def classic(**options):
    given = {"api_key": "azure-key-123", "api_version": "2024-10-21", "azure_endpoint": "https://res.openai.azure.com"}
    return openai.AzureOpenAI(**given | options)


def v1(**options):
    return openai.OpenAI(
        **{"api_key": "azure-key-123", "base_url": "https://res.openai.azure.com/openai/v1/"} | options
    )


CLIENTS = {
    "classic": classic,
    "classic with a deployment": lambda: classic(azure_deployment="mine"),
    "classic with a token": lambda: classic(api_key=None, azure_ad_token="entra-token-123"),
    "classic with a token provider": lambda: classic(api_key=None, azure_ad_token_provider=lambda: "entra-token-123"),
    "v1": v1,
}


@pytest.mark.parametrize("which", CLIENTS)
def test_azure_is_recognised_by_its_client(which):
    client = Service(CLIENTS[which]()).client
    assert client.account.provider == "azure"
    assert client.account.base_url == "https://res.openai.azure.com"
    assert client.min_poll_seconds == 60


def test_provider_option_selects_azure():
    assert Service(v1(base_url="https://proxy.example/openai/v1"), "azure").client.account.provider == "azure"
    assert Service(v1(base_url="https://proxy.example/openai/v1"), "openai").client.account.provider == "openai"


@pytest.mark.parametrize(
    ("base_url", "resource"),
    [
        ("https://gateway.example/openai/v1/", "https://gateway.example"),
        ("https://gateway.example:8443/OpenAI/V1", "https://gateway.example:8443"),
        ("https://me:secret@10.0.0.4/openai/v1", "https://10.0.0.4"),
        ("https://gateway.example/team-a/openai/v1", "https://gateway.example/team-a"),
        ("https://gateway.example/openai/team-b/openai/v1//", "https://gateway.example/openai/team-b"),
        ("https://res.openai.azure.com/openai/v1/", "https://res.openai.azure.com"),
    ],
)
def test_azures_v1_path_means_azure_behind_any_host(base_url, resource):
    client = Service(v1(base_url=base_url)).client
    assert (client.account.provider, client.account.base_url) == ("azure", resource)


def test_a_gateway_in_front_of_the_classic_interface():
    for options in ({}, {"azure_deployment": "openai"}):
        client = Service(classic(azure_endpoint="https://gateway.example/team-a", **options)).client
        assert client.account.base_url == "https://gateway.example/team-a"
    client = Service(classic(azure_endpoint=None, base_url="https://gateway.example/a/openai/v1/")).client
    assert client.account.base_url == "https://gateway.example/a"


def test_requests_through_a_gateway_are_valid_for_every_service():
    profile = Service(v1(base_url="https://gateway.example/openai/v1")).client.provider
    assert (profile.limits.max_requests, profile.limits.max_bytes) == (50_000, 200_000_000)
    request = bf.requests(FRAME, "{text}", client=v1(base_url="https://gateway.example/openai/v1"), model="m")
    assert json.loads(request["request"][0])["url"] == "/v1/chat/completions"
    with pytest.raises(bf.OptionError, match="azure takes 1209600 to 2592000"):
        bf.requests(
            FRAME, "{text}", client=v1(base_url="https://gateway.example/openai/v1"), expires_after=3_600, model="m"
        )


@pytest.mark.parametrize("settings", [{"dialect": "azure-v1", "oddities": "all"}, {"service": "groq"}])
def test_a_run_through_an_unknown_host(settings, emulate):
    """The emulator's host is unknown. Its path means Azure, and nothing breaks if that is wrong."""
    with emulate(**settings) as service:
        out = bf.run(FRAME, "Repeat: {text}", client=service.client(), **ARGUMENTS)
        assert out["error"].null_count() == 40
        assert service.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(40)}
        (file,) = [file for file in service.client().files.list() if file.purpose == "batch"]
        assert file.expires_at - file.created_at == 2_592_000


def test_openai_behind_the_path_of_azure(emulate):
    """A gateway that passes all it gets under its own path on to OpenAI."""
    with emulate() as service:
        moved = transport.MockTransport(lambda request: service_behind(service, request))
        http = getattr(openai, "DefaultHttpxClient", transport.Client)(transport=moved)
        client = v1(base_url="http://gateway.example/openai/v1", http_client=http)
        assert bf.run(FRAME, "Repeat: {text}", client=client, **ARGUMENTS)["error"].null_count() == 40
        assert service.ledger()["executions"] == 40


def service_behind(service, request):
    url = service.endpoint + request.url.raw_path.decode().removeprefix("/openai")
    with transport.Client() as client:
        reply = client.request(request.method, url, content=request.read(), headers=passed_on(request.headers))
    return transport.Response(reply.status_code, content=reply.content, headers=passed_on(reply.headers))


def passed_on(headers):
    return {name: headers[name] for name in ("authorization", "content-type") if name in headers}


def test_azure_client_from_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://res.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k-123")
    with pytest.raises(bf.OptionError, match=r"for Azure OpenAI are incomplete .*OPENAI_API_VERSION"):
        Service().client.close()
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    assert Service().client.account.base_url == "https://res.openai.azure.com"
    line = json.loads(bf.requests(FRAME, "{text}", model="my-deployment")["request"][0])
    assert line["url"] == "/chat/completions"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123")
    with pytest.raises(bf.OptionError, match="names two services"):
        Service().client.close()


def test_expiry_within_azures_range(tmp_path):
    for seconds in (3600, 1_209_599):
        with pytest.raises(bf.OptionError, match=r"expires_after is \d+ seconds, and azure takes 1209600 to 2592000"):
            bf.requests(FRAME, "{text}", client=classic(), expires_after=seconds, model="m")
    assert bf.requests(FRAME, "{text}", client=classic(), expires_after=1_209_600, model="m").height == 40


def refusal(status, body, call="create_batch"):
    response = openai._base_client.httpx2 if hasattr(openai._base_client, "httpx2") else __import__("httpx")
    request = response.Request("POST", "https://res.openai.azure.com/openai/batches")
    sdk = classic()
    error = sdk._make_status_error(
        "said", body=body.get("error", body), response=response.Response(status, request=request)
    )
    return map_error(error, call, ["azure-key-123"], is_azure=True)


REFUSALS = {
    "error object": (
        400,
        {"error": {"code": "OperationNotSupported", "message": "The batch operation does not work"}},
        bf.InvalidCallError,
        "OperationNotSupported: The batch operation does not work. The deployment must be of type Global Batch",
    ),
    "errors list": (
        400,
        {"errors": {"data": [{"code": "model_not_found", "message": "no azure-key-123 deployment"}]}},
        bf.InvalidCallError,
        r"400 model_not_found: no \*\*\* deployment. Check the model: on Azure it is the name of a Global Batch",
    ),
    "flat": (
        401,
        {"statusCode": 401, "message": "Unauthorized. Access token is missing"},
        bf.AuthenticationError,
        "401: Unauthorized",
    ),
    "file quota": (
        400,
        {
            "error": {
                "code": "invalidPayload",
                "message": "The quota for files without expiry is reached. The maximum is 500.",
            }
        },
        bf.InvalidCallError,
        "maximum is 500. Delete files of the resource that are no longer needed",
    ),
    "no room": (
        400,
        {"error": {"code": "token_limit_exceeded", "message": "The number of enqueued tokens has surpassed the limit"}},
        bf.RateLimitError,
        "surpassed the limit",
    ),
    "no room, in the text": (
        400,
        {"error": {"code": "BadRequest", "message": "token_limit_exceeded: full"}},
        bf.RateLimitError,
        "full",
    ),
    "not processed": (
        400,
        {
            "error": {
                "message": "The input file 'file-1' is in 'pending' state. Only files with status 'Processed' are accepted for batch"
            }
        },
        bf.APICallError,
        "pending",
    ),
    "path": (
        404,
        {"error": {"code": "404", "message": "Resource not found"}},
        bf.NotVisibleError,
        "Check azure_endpoint and api_version",
    ),
    "no body": (400, {}, bf.InvalidCallError, "the service answered 400"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_of_every_shape(case):
    status, body, kind, message = REFUSALS[case]
    error = refusal(status, body)
    with pytest.raises(kind, match=message):
        raise error
    assert error.is_in_doubt is False
    assert error.is_transient is (case.startswith("no room") or case == "not processed")


def test_malformed_batch_objects():
    batch = _remote_batch(
        {
            "id": "batch_1",
            "status": "Canceled",
            "created_at": "2024-07-19T17:13:57.2491382+00:00",
            "endpoint": None,
            "input_file_id": "file-1",
            "output_file_id": "",
            "error_file_id": "",
            "request_counts": {"total": None, "completed": None, "failed": None},
            "errors": None,
        }
    )
    assert (batch.status, batch.is_terminal) == ("cancelled", True)
    assert (batch.output_file_id, batch.error_file_id, batch.completed_requests) == (None, None, 0)
    assert batch.created_at.microsecond == 249138
    assert not _remote_batch({"id": "b", "status": "pre_schedule"}).is_terminal
    assert not _remote_batch({"id": "b", "status": None}).is_terminal


@pytest.mark.parametrize("value", [None, "", "yesterday", [], {}, True, 10**30])
def test_invalid_times_are_none(value):
    assert moment(value) is None


def test_secrets_are_removed_from_messages():
    assert _azure.secrets_of(classic(api_key=None, azure_ad_token="entra-token-123"))[-1] == "entra-token-123"
    assert "azure-key-123" in _azure.secrets_of(v1())


@pytest.fixture(params=["azure", "azure-v1"])
def azure(request, emulate):
    with emulate(request.param) as emu:
        yield emu


def ask(azure, prompt="Repeat: {text}", frame=FRAME, **options):
    # The emulator's address does not show that it is Azure, so a v1 client needs provider=.
    return bf.run(frame, prompt, client=azure.client(), provider="azure", **ARGUMENTS | options)


def test_the_same_frame_comes_back_from_every_service(azure, emu):
    azure.configure(oddities="all", pending_polls=2)
    include = ["batch_id", "raw", "content_filter"]
    theirs = ask(azure, include=include)
    ours = bf.run(FRAME, "Repeat: {text}", client=emu.client(), **ARGUMENTS)
    # The classic API sends no usage details. Missing details are null, not 0.
    untold = ["cached_tokens", "reasoning_tokens"] if theirs["usage"][0]["cached_tokens"] is None else []
    untold_as_null = [pl.lit(None, pl.Int64).alias(name) for name in untold]
    assert_frame_equal(theirs[ours.columns], ours.with_columns(pl.col("usage").struct.with_fields(*untold_as_null)))
    assert azure.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(40)}
    verdicts = json.loads(theirs["content_filter"][0])
    assert set(verdicts) == {"prompt", "response"}
    assert verdicts["response"]["hate"] == {"filtered": False, "severity": "safe"}


def test_waiting_for_a_pending_file_has_a_limit(monkeypatch, azure):
    azure.configure(pending_polls=3)
    assert ask(azure)["error"].null_count() == 40
    assert azure.calls()["create_batch"] == 1
    monkeypatch.setattr(submit, "_LOOK_SECONDS", 0.3)
    azure.configure(pending_polls=10_000)
    with pytest.raises(bf.RunError, match="had not looked at the input file after"):
        ask(azure, "Again: {text}")
    azure.configure(pending_polls=0)
    assert ask(azure, "Again: {text}")["error"].null_count() == 40


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "status", "late"])
def test_a_create_in_doubt_is_settled_on_azure_too(azure, kind):
    azure.configure(oddities="all")
    azure.fault("create_batch", kind, **{"seconds": 0.2} if kind == "late" else {})
    assert ask(azure)["error"].null_count() == 40
    assert azure.ledger()["by_custom_id"] == {f"row-{n}": 1 for n in range(40)}


def test_an_unknown_deployment_is_one_clear_error(azure):
    azure.configure(deployments={"mine": "gpt-4o-mini"})
    with pytest.raises(bf.BatchframeError, match=r"model_not_found|DeploymentNotFound"):
        ask(azure, model="yours")
    assert ask(azure, model="mine")["error"].null_count() == 40
    assert azure.ledger()["executions"] == 40


def test_files_are_uploaded_with_an_expiry(azure):
    ask(azure)
    (file,) = [file for file in azure.client().files.list() if file.purpose == "batch"]
    assert file.expires_at - file.created_at == 2_592_000


def test_failed_rows(azure):
    azure.configure(oddities="all")
    frame = pl.DataFrame({"text": ["a", "b"], "heat": [0.0, 99.0]})
    with pytest.warns(bf.BatchframeWarning, match="1 of 2 rows did not succeed"):
        out = ask(azure, frame=frame, temperature=pl.col("heat"))
    assert out["error"].is_null().to_list() == [True, False]
