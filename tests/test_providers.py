"""The profiles of the services: recognised by their hosts, with limits that come from somewhere."""

from __future__ import annotations

import dataclasses

import pytest

import batchframe as bf
from batchframe._limits import AZURE_QUOTAS, AZURE_SUBSCRIPTIONS, azure_quota_note
from batchframe._providers import OPENAI, PROVIDERS, provider_named, provider_of

HOSTS = {
    "https://api.openai.com/v1": "openai",
    "https://eu.api.openai.com/v1/": "openai",
    "https://res.openai.azure.com/openai/v1/": "azure",
    "https://RES.OpenAI.Azure.com/openai": "azure",
    "https://res.openai.azure.com.:443/openai": "azure",
    "https://res.cognitiveservices.azure.com/openai/v1": "azure",
    "https://res.services.ai.azure.com/openai/v1": "azure",
    "https://user:secret@api.groq.com/openai/v1": "groq",
    "https://api.together.xyz/v1": "together",
    "https://dashscope-intl.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://api.siliconflow.cn/v1": "siliconflow",
    "https://api.moonshot.ai/v1": "moonshot",
    "https://open.bigmodel.cn/api/paas/v4": "zhipu",
    "https://api.tokenfactory.nebius.com/v1/": "nebius",
    "https://api.doubleword.ai/v1": "doubleword",
    "https://api.parasail.io/v1": "parasail",
    # Not theirs, and nothing that is a URL: the safe limits.
    "https://openai.azure.com.evil.example/v1": "openai",
    "https://notapi.groq.com.example/v1": "openai",
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


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_profile_is_whole(name):
    profile = provider_named(name)
    assert profile.name == name
    assert profile.hosts
    assert profile.limits.max_requests >= 1
    assert profile.limits.max_bytes >= 1_000_000
    assert profile.limits.max_enqueued_tokens is None  # never assumed
    assert profile.completion_windows[0] == "24h"
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
def test_no_input_file_holds_more_embeddings_than_is_known_to_be_safe(name, given):
    profile = provider_named(name)
    chat, embeddings = (profile.limits_of(f"/v1/{path}", given) for path in ("chat/completions", "embeddings"))
    assert chat == given.over(profile.limits)
    assert embeddings == dataclasses.replace(chat, max_requests=min(chat.max_requests, 50_000))
    assert profile.most_enqueued_of("/v1/embeddings") == 1_000_000
    assert profile.most_enqueued_of("/v1/chat/completions") is None


def test_an_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(
        bf.OptionError, match=r"no provider 'azur'. Did you mean 'azure'\? Known: azure, dashscope, .*bf.Prov"
    ):
        provider_named("azur")


def test_a_profile_of_ones_own():
    ours = bf.Provider(name="ours", limits=bf.Limits(max_requests=10), endpoints={"/v1/chat/completions": "/chat"})
    assert (ours.limits.max_requests, ours.limits.max_bytes) == (10, 200_000_000)
    assert ours.completion_windows == ("24h",)
    assert bf.Provider(name="other").limits == OPENAI.limits
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.name = "theirs"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": ""}, "name must be a text that is not empty"),
        ({"name": None}, "name must be a text"),
        ({"name": "x", "completion_windows": "24h"}, "completion_windows must be a tuple of texts, got the text '24h'"),
        ({"name": "x", "completion_windows": ()}, "completion_windows of 'x' is empty"),
        ({"name": "x", "hosts": "api.x.com"}, "hosts must be a tuple"),
        ({"name": "x", "max_embeddings": 0}, "max_embeddings must be a whole number of at least 1, got 0"),
        ({"name": "x", "max_enqueued_embeddings": None}, "max_enqueued_embeddings must be a whole number"),
    ],
)
def test_a_profile_that_cannot_be(options, says):
    with pytest.raises(bf.OptionError, match=says):
        bf.Provider(**options)


# -- quotas of Azure


@pytest.mark.parametrize(
    ("model", "subscription", "tokens"),
    [
        ("gpt-4o", "default", 200_000_000),
        ("gpt-4o", "enterprise", 5_000_000_000),
        ("gpt-4o-mini", "Enterprise agreement", 15_000_000_000),
        ("gpt-4-turbo", "credit_card", 40_000_000),
        ("gpt-4", "Monthly credit card based subscriptions", 5_000_000),
        ("gpt-4", "MSDN", 100_000),
        ("gpt-35-turbo", "students", 50_000),
        ("gpt-35-turbo", "Azure for Students, Free Trials", 50_000),
    ],
)
def test_quotas(model, subscription, tokens):
    limits = bf.Limits.azure(model, subscription)
    assert limits == bf.Limits(max_requests=100_000, max_bytes=200_000_000, max_enqueued_tokens=tokens)


def test_the_table_is_whole():
    assert {len(quotas) for quotas in AZURE_QUOTAS.values()} == {len(AZURE_SUBSCRIPTIONS)}


@pytest.mark.parametrize(
    ("model", "subscription", "says"),
    [
        ("gpt-4p", "default", r"no model 'gpt-4p'. Did you mean 'gpt-4'\? It has: gpt-4o, gpt-4o-mini, "),
        ("gpt-4o", "defualt", r"no subscription 'defualt'. Did you mean 'default'\? It has: enterprise, default, "),
        ("gpt-4o", None, "no subscription None. It has"),
        (
            "gpt-4o",
            "students",
            r"'Azure for Students, Free Trials' has no batch quota for gpt-4o \(N/A .*: enterprise, ",
        ),
    ],
)
def test_what_the_table_does_not_have(model, subscription, says):
    with pytest.raises(bf.OptionError, match=says):
        bf.Limits.azure(model, subscription)


def test_the_table_in_a_message():
    assert azure_quota_note("gpt-4o") == (
        "Enqueued tokens for gpt-4o in Microsoft's table of October 2024: Enterprise agreement 5,000,000,000; "
        "Default 200,000,000; Monthly credit card based subscriptions 50,000,000; MSDN subscriptions 90,000; "
        "Azure for Students, Free Trials none."
    )
    assert azure_quota_note("my-deployment") == ""
