"""The profiles of the services: recognised by their hosts, with limits that have a source."""

from __future__ import annotations

import dataclasses

import openai
import polars as pl
import pytest

import batchframe as bf
from batchframe._providers.limits import AZURE_DATA_ZONE_QUOTAS, AZURE_QUOTAS, AZURE_SUBSCRIPTIONS, azure_quota_note
from batchframe._providers.other_forms import OTHER_FORMS
from batchframe._providers.profiles import OPENAI, PROVIDERS, provider_named, provider_of

HOSTS = {
    "https://api.openai.com/v1": "openai",
    "https://eu.api.openai.com/v1/": "openai",
    "https://res.openai.azure.com/openai/v1/": "azure",
    "https://RES.OpenAI.Azure.com/openai": "azure",
    "https://res.openai.azure.com.:443/openai": "azure",
    "https://res.cognitiveservices.azure.com/openai/v1": "azure",
    "https://res.services.ai.azure.com/openai/v1": "azure",
    "https://user:secret@api.groq.com/openai/v1": "groq",
    "https://res.openai.azure.us/openai/v1/": "azure",
    "https://res.openai.azure.cn/openai": "azure",
    "https://res.cognitiveservices.azure.us/openai/v1": "azure",
    "https://dashscope-us.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://dashscope-intl.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://api.siliconflow.cn/v1": "siliconflow",
    "https://api.moonshot.ai/v1": "moonshot",
    "https://open.bigmodel.cn/api/paas/v4": "zhipu",
    "https://api.z.ai/api/paas/v4": "zhipu",
    "https://api.tokenfactory.nebius.com/v1/": "nebius",
    "https://api.studio.nebius.ai/v1/": "nebius",
    "https://api.doubleword.ai/v1": "doubleword",
    "https://api.parasail.io/v1": "parasail",
    "https://api.perplexity.ai/v1": "perplexity",
    "https://api.deepinfra.com/v1/openai": "deepinfra",
    "https://api.novita.ai/openai/v1": "novita",  # Azure's path, and not Azure
    # Not theirs, and nothing that is a URL: the safe limits.
    "https://openai.azure.com.evil.example/v1": "openai",
    "https://notapi.groq.com.example/v1": "openai",
    "https://api.together.ai.example/v1": "openai",
    "https://gateway.example/openrouter.ai/v1": "openai",
    "http://127.0.0.1:8080/v1": "openai",
    "https://gateway.example/openai": "openai",
    "https://gateway.example/openai/v1/more": "openai",
    # Nobody's host with Azure's path.
    "https://gateway.example/openai/v1": "azure",
    "https://api.groq.com.example/x/openai/v1/": "azure",
    "https://[bad": "openai",
    "": "openai",
}


@pytest.mark.parametrize("base_url", HOSTS)
def test_a_service_is_recognised_by_its_host(base_url):
    assert provider_of(base_url).name == HOSTS[base_url]


# Each with the first words of its reason.
REFUSED = {
    "https://api.together.xyz/v1": "Together, .* input files go to storage in three steps.* read the result file",
    "https://api.together.ai/v1/": "Together, ",
    "https://generativelanguage.googleapis.com/v1beta/openai/": "Gemini, .* files are uploaded .* read the result",
    "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi": "Vertex AI, ",
    "https://aiplatform.googleapis.com/v1": "Vertex AI, ",
    "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1": "Amazon Bedrock, .* are in S3. Nothing was sent",
    "https://bedrock-mantle.us-east-1.api.aws/v1": "Amazon Bedrock, ",
    "https://api.anthropic.com/v1/": "Anthropic, ",
    "https://api.mistral.ai/v1": "Mistral, .* /v1/batch/jobs",
    "https://api.x.ai/v1": "xAI, ",
    "https://OpenRouter.ai/api/v1": "OpenRouter, .* inline",
    "https://api.fireworks.ai/inference/v1": "Fireworks, ",
    "https://api.cohere.ai/compatibility/v1": "Cohere, ",
    "https://inference.do-ai.run/v1": "DigitalOcean, ",
    "https://ark.cn-beijing.volces.com/api/v3": "Volcengine, ",
}


@pytest.mark.parametrize("base_url", REFUSED)
def test_services_with_another_batch_api_are_refused_at_once(base_url, batchframe_home):
    """Before anything is rendered or sent; also where batches are listed or read by their id."""
    frame = pl.DataFrame({"n": [1]})
    message = f'belongs to {REFUSED[base_url]}.* gateway .*provider="openai" or a bf.Provider'
    with openai.OpenAI(api_key="k", base_url=base_url) as client:
        for call in (
            lambda: bf.run(frame, "{n}", model="m", client=client),
            lambda: bf.submit(frame, "{n}", model="m", client=client),
            lambda: bf.requests(frame, "{n}", model="m", client=client),
            lambda: bf.batches(client),
            lambda: bf.read_batch("batch_1", client=client),
        ):
            with pytest.raises(bf.OptionError, match=message):
                call()
        assert not batchframe_home.exists()
        # An explicit provider overrides the host.
        assert bf.requests(frame, "{n}", model="m", client=client, provider="openai").height == 1
        assert bf.requests(frame, "{n}", model="m", client=client, provider=bf.Provider(name="mine")).height == 1


def test_the_base_url_of_the_environment_is_refused_too(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.together.ai/v1")
    with pytest.raises(bf.OptionError, match=r"api.together.ai belongs to Together"):
        bf.run(pl.DataFrame({"n": [1]}), "{n}", model="m")


def test_no_profile_has_a_refused_host():
    hosts = [host for profile in PROVIDERS.values() for host in profile.hosts]
    assert len({other.service for other in OTHER_FORMS}) == len(OTHER_FORMS)
    assert not [host for host in hosts for other in OTHER_FORMS if other.has(host.removeprefix("."))]


# -- what a service does not take


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("perplexity", {}, r'perplexity takes no batches for /v1/chat/completions: pass endpoint="/v1/responses"$'),
        ("groq", {"endpoint": "/v1/embeddings"}, 'pass endpoint="/v1/chat/completions"'),
        ("novita", {"endpoint": "/v1/responses"}, 'pass endpoint="/v1/chat/completions" or endpoint="/v1/completions"'),
        ("deepinfra", {"endpoint": "/v1/moderations"}, "deepinfra takes no batches for /v1/moderations"),
        ("perplexity", {"endpoint": "/v1/responses", "expires_after": 90_000}, "perplexity takes none.*leave it out"),
        ("deepinfra", {"completion_window": "48h"}, "completion_window '48h' is not one of deepinfra's: 24h"),
        ("novita", {"completion_window": "24h"}, "completion_window '24h' is not one of novita's: 48h"),
    ],
)
def test_unsupported_options_are_refused_before_upload(name, options, message):
    with openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1") as client:
        with pytest.raises(bf.OptionError, match=message):
            bf.run(pl.DataFrame({"n": [1]}), "{n}", model="m", client=client, provider=name, **options)


def test_request_lines_are_limited():
    frame = pl.DataFrame({"n": ["x" * 5_000_000, "x" * 6_000_000]})
    with openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1") as client:
        lines = bf.requests(frame, "{n}", model="m", client=client, provider="dashscope")
        assert lines["request"].is_null().to_list() == [False, True]
        limits = bf.Limits(max_bytes=1_000)
        assert provider_named("dashscope").most_line_bytes(limits) == 1_000


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_profile_is_complete(name):
    profile = provider_named(name)
    assert profile.name == name
    assert profile.hosts
    assert profile.limits.max_requests >= 1
    assert profile.limits.max_bytes >= 1_000_000
    assert profile.limits.max_enqueued_tokens is None  # never assumed
    assert profile.completion_windows[0] == ("48h" if name == "novita" else "24h")
    assert profile.min_poll_seconds >= 0
    assert all(ours.startswith("/v1/") and theirs.startswith("/") for ours, theirs in profile.endpoints.items())
    if profile.expires_files is not None:
        shortest, longest = profile.file_expiry_seconds
        assert shortest <= profile.expires_files <= longest
    assert hash(profile) == hash(dataclasses.replace(profile))


def test_azure():
    azure = provider_named("azure")
    assert (azure.limits.max_requests, azure.limits.max_bytes) == (100_000, 200_000_000)
    assert azure.endpoints["/v1/chat/completions"] == "/chat/completions"
    assert azure.file_expiry_seconds == (14 * 86_400, 30 * 86_400)
    assert azure.min_poll_seconds == 60


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("given", [bf.Limits(), bf.Limits(max_requests=100_000), bf.Limits(max_requests=7)])
def test_embeddings_of_an_input_file_are_limited(name, given):
    profile = provider_named(name)
    chat, embeddings = (profile.limits_of(f"/v1/{path}", given) for path in ("chat/completions", "embeddings"))
    assert chat == given.over(profile.limits)
    most = 10_000 if name == "zhipu" else 50_000
    assert embeddings == dataclasses.replace(chat, max_requests=min(chat.max_requests, most))
    assert profile.most_enqueued_of("/v1/embeddings") == 1_000_000
    assert profile.most_enqueued_of("/v1/chat/completions") is None


def test_unknown_providers_get_a_suggestion():
    with pytest.raises(
        bf.OptionError, match=r"unknown provider 'azur'. Did you mean 'azure'\? Known: azure, dashscope, .*bf.Prov"
    ):
        provider_named("azur")


def test_custom_profiles():
    ours = bf.Provider(name="ours", limits=bf.Limits(max_requests=10), endpoints={"/v1/chat/completions": "/chat"})
    assert (ours.limits.max_requests, ours.limits.max_bytes) == (10, 200_000_000)
    assert ours.completion_windows == ("24h",)
    assert bf.Provider(name="other").limits == OPENAI.limits
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.name = "theirs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name must be a non-empty text"),
        ({"name": None}, "name must be a non-empty text"),
        ({"name": "x", "completion_windows": "24h"}, "completion_windows must be a tuple of texts, got the text '24h'"),
        ({"name": "x", "completion_windows": ()}, "completion_windows of 'x' is empty"),
        ({"name": "x", "hosts": "api.x.com"}, "hosts must be a tuple"),
        ({"name": "x", "served_endpoints": "/v1/responses"}, "served_endpoints must be a tuple"),
        ({"name": "x", "max_request_bytes": 0}, "max_request_bytes must be a whole number of at least 1, got 0"),
        ({"name": "x", "max_embeddings": 0}, "max_embeddings must be a whole number of at least 1, got 0"),
        ({"name": "x", "max_enqueued_embeddings": None}, "max_enqueued_embeddings must be a whole number"),
    ],
)
def test_invalid_profiles(options, message):
    with pytest.raises(bf.OptionError, match=message):
        bf.Provider(**options)


# -- quotas of Azure


# Model, enterprise, default, credit card, MSDN: Microsoft's tables, typed in here once more.
GLOBAL = """
gpt-4.1 5000M 200M 50M 90K
gpt-4o 5000M 200M 50M 90K
gpt-5 5000M 200M 50M 90K
gpt-5.1 5000M 200M 50M 90K
gpt-4.1-mini 15000M 1000M 50M 90K
gpt-4.1-nano 15000M 1000M 50M 90K
gpt-4o-mini 15000M 1000M 50M 90K
o3-mini 15000M 1000M 50M 90K
o4-mini 15000M 1000M 50M 90K
gpt-4-turbo 300M 80M 40M 90K
gpt-4 150M 30M 5M 100K
"""
DATA_ZONE = """
gpt-4.1 500M 30M 30M 90K
gpt-4o 500M 30M 30M 90K
gpt-4.1-mini 1500M 100M 50M 90K
gpt-4o-mini 1500M 100M 50M 90K
o3-mini 1500M 100M 50M 90K
gpt-5 5000M 200M 50M 90K
gpt-5.1 5000M 200M 50M 90K
"""
KINDS = {
    "enterprise": "Enterprise agreement",
    "default": "Default",
    "credit_card": "Monthly credit card based subscriptions",
    "msdn": "MSDN",
}


@pytest.mark.parametrize(("table", "data_zone"), [(GLOBAL, False), (DATA_ZONE, True)])
def test_quotas(table, data_zone):
    rows = [row.split() for row in table.split("\n") if row]
    assert {row[0] for row in rows} == (AZURE_DATA_ZONE_QUOTAS if data_zone else AZURE_QUOTAS).keys()
    for model, *quotas in rows:
        for (name, title), quota in zip(KINDS.items(), quotas, strict=True):
            tokens = int(quota[:-1]) * {"M": 1_000_000, "K": 1_000}[quota[-1]]
            limits = bf.Limits(max_requests=100_000, max_bytes=200_000_000, max_enqueued_tokens=tokens)
            assert bf.Limits.azure(model, name, data_zone=data_zone) == limits
            assert bf.Limits.azure(model, title, data_zone=data_zone) == limits


def test_quota_tables_are_complete():
    for table in (AZURE_QUOTAS, AZURE_DATA_ZONE_QUOTAS):
        assert {len(quotas) for quotas in table.values()} == {len(AZURE_SUBSCRIPTIONS)}


@pytest.mark.parametrize(
    ("model", "subscription", "data_zone", "message"),
    [
        (
            "gpt-4p",
            "default",
            False,
            r"Global Batch quotas has no model 'gpt-4p'. Did you mean 'gpt-4'\? It has: gpt-5.1",
        ),
        ("gpt-35-turbo", "default", False, "no model 'gpt-35-turbo'"),
        ("o4-mini", "default", True, "Data Zone Batch quotas has no model 'o4-mini'"),
        (
            "gpt-4o",
            "defualt",
            False,
            r"no subscription 'defualt'. Did you mean 'default'\? It has: enterprise, default, ",
        ),
        ("gpt-4o", None, False, "no subscription None. It has"),
        ("gpt-4o", "default", "yes", "data_zone must be True .* or False .*, got 'yes'"),
        (
            "gpt-4o",
            "students",
            False,
            r"'Azure for Students, Free Trials' has no batch quota for gpt-4o \(N/A .*: enterprise, ",
        ),
    ],
)
def test_models_and_subscriptions_without_a_quota(model, subscription, data_zone, message):
    with pytest.raises(bf.OptionError, match=message):
        bf.Limits.azure(model, subscription, data_zone=data_zone)


def test_quota_note():
    assert azure_quota_note("gpt-4o") == (
        "Enqueued tokens for gpt-4o in Microsoft's tables of November 2026. Global Batch: Enterprise agreement "
        "5,000,000,000; Default 200,000,000; Monthly credit card based subscriptions 50,000,000; MSDN subscriptions "
        "90,000; Azure for Students, Free Trials none. Data Zone Batch: Enterprise agreement 500,000,000; Default "
        "30,000,000; Monthly credit card based subscriptions 30,000,000; MSDN subscriptions 90,000; Azure for "
        "Students, Free Trials none."
    )
    assert "Data Zone" not in azure_quota_note("gpt-4")
    assert azure_quota_note("my-deployment") == ""
