"""Other services with OpenAI's batch API: only what is known of each; the rest is as OpenAI has it.

Source: the page or package named, read on 2026-11-28. D: documentation, S: SDK, T: a third party, W: seen on the wire.
MB is read as MiB, the larger meaning, so that nothing is refused too early.
"""

from __future__ import annotations

from typing import Literal

from batchframe.emulator._config.dialects import DAY_SECONDS, DIALECTS, Dialect, Trial

ServiceName = Literal[
    "groq",
    "dashscope",
    "siliconflow",
    "moonshot",
    "zhipu",
    "nebius",
    "doubleword",
    "parasail",
    "perplexity",
    "deepinfra",
    "novita",
]
_MB, _GB = 1 << 20, 1 << 30
_CHAT, _RESPONSES, _EMBEDDINGS, _COMPLETIONS = (
    f"/v1/{path}" for path in ("chat/completions", "responses", "embeddings", "completions")
)
_TRIAL = Trial("/v1/chat/ds-test", "batch-test-model", 100, _MB)
_OPENAI = DIALECTS["openai"]

SERVICES: dict[ServiceName, Dialect] = {
    # console.groq.com/docs/batch (D): windows from 24h to 7d, of which only the two ends are named; a batch completes
    # although some of its lines failed validation; lists are paged by cursor. https://api.groq.com/openai/v1. Only
    # chat, and 100 MB: groq 1.7.0 (S), where the guide says 200 MB.
    "groq": _OPENAI._replace(
        name="groq",
        prefix="/openai/v1",
        endpoints={_CHAT: _CHAT},
        windows={"24h": DAY_SECONDS, "7d": 7 * DAY_SECONDS},
        max_file_bytes=100 * _MB,
        file_id="file_01j{base32}",
        output_id="file_01j{base32}",
        batch_id="batch_01j{base32}",
        oddities=("bare_errors",),
        codes={"method": "invalid_method"},
        skips_bad_lines=True,
        pages_by_cursor=True,
    ),
    # alibabacloud.com/help/en/model-studio/batch-inference of 2025-12-04 (D): 500 MB, 6 MB a line, an endpoint for
    # trials; failed requests in the output file and counts.failed 0 (W).
    # https://dashscope.aliyuncs.com/compatible-mode/v1
    "dashscope": _OPENAI._replace(
        name="dashscope",
        prefix="/compatible-mode/v1",
        endpoints={**_OPENAI.endpoints, _TRIAL.endpoint: _CHAT},
        trial=_TRIAL,
        max_file_bytes=500 * _MB,
        max_line_bytes=6 * _MB,
        file_id="file-batch-{base62}",
        output_id="file-batch-{base62}",
        batch_id="batch_{uuid}",
        codes={"url": "url_not_found"},
        fails_into_output=True,
    ),
    # docs.siliconflow.cn/cn/userguide/guides/batch and its API reference (D): windows of 24 to 336 hours.
    "siliconflow": _OPENAI._replace(
        name="siliconflow",
        endpoints={_CHAT: _CHAT},
        windows={f"{hours}h": 3_600 * hours for hours in range(24, 337)},
        max_requests=5_000,
        max_file_bytes=_GB,
        ends_with_user=True,
    ),
    # platform.kimi.ai/docs/api/batch-create (D): 100 MB; windows from 12h to 7d, from a copy of that page.
    "moonshot": _OPENAI._replace(
        name="moonshot",
        windows={"12h": DAY_SECONDS / 2, "24h": DAY_SECONDS} | {f"{days}d": days * DAY_SECONDS for days in (1, 3, 7)},
        models=("kimi-k2.5", "kimi-k2.6", "kimi-k2.7-code"),
        max_file_bytes=100 * _MB,
    ),
    # docs.bigmodel.cn, API reference (D), seen (W): the version is part of the endpoint, in batch and lines. Input
    # files are deleted unless auto_delete_input_file is false (D). https://open.bigmodel.cn/api/paas/v4
    "zhipu": _OPENAI._replace(
        name="zhipu",
        prefix="/api/paas/v4",
        endpoints={"/v4/chat/completions": _CHAT},
        parameters=("auto_delete_input_file",),
        max_file_bytes=100 * _MB,
        deletes_input=True,
    ),
    # docs.tokenfactory.nebius.com/ai-models-inference/batch-inference (D).
    "nebius": _OPENAI._replace(name="nebius", max_requests=5_000_000, max_file_bytes=10 * _GB),
    # docs.doubleword.ai (D); whether the 1h window still exists is uncertain (T).
    "doubleword": _OPENAI._replace(name="doubleword", windows={"24h": DAY_SECONDS, "1h": 3_600}),
    # openai-batch 0.3.4, providers.py (S).
    "parasail": _OPENAI._replace(name="parasail", max_file_bytes=500 * _MB),
    # docs.perplexity.ai, files-create-post and batches-create-post (D): every line is validated at the upload, neither
    # uploads nor creates set an expiry, a create may have an Idempotency-Key. Only responses: perplexityai 0.46.1 (S).
    "perplexity": _OPENAI._replace(
        name="perplexity",
        endpoints={_RESPONSES: _RESPONSES},
        takes_expiry=False,
        validates_uploads=True,
        takes_idempotency_key=True,
    ),
    # docs.deepinfra.com, batch/introduction and batch-endpoints (D). https://api.deepinfra.com/v1/openai
    "deepinfra": _OPENAI._replace(
        name="deepinfra",
        prefix="/v1/openai",
        endpoints={path: path for path in (_CHAT, _COMPLETIONS, _EMBEDDINGS)},
    ),
    # novita.ai/docs, guides/llm-batch-api and model-apis-llm-retrieve-batch (D): the window is always 48h;
    # statuses such as PROGRESS; `errors` and `created_at` are texts; the counts are members of the batch. Metadata is
    # shown, but no create is documented to take it: it is dropped here. https://api.novita.ai/openai/v1
    "novita": _OPENAI._replace(
        name="novita",
        prefix="/openai/v1",
        endpoints={path: path for path in (_CHAT, _COMPLETIONS)},
        windows={"48h": 2 * DAY_SECONDS},
        life_seconds=15 * DAY_SECONDS,
        oddities=(
            "upper_status",
            "progress_status",
            "text_errors",
            "iso_timestamps",
            "top_counts",
            "empty_ids",
            "no_metadata",
        ),
    ),
}
