"""Other services with OpenAI's batch API: what is known of each, and no more; all else is as OpenAI has it.

Source: section 9 of the project's notes on the API, and the page of the service that is named. D: its documentation,
W: seen on the wire. Numbers of bytes are read as the larger of their meanings, so that nothing is refused too early.
"""

from __future__ import annotations

from typing import Literal

from batchframe.emulator._dialects import DAY_SECONDS, DIALECTS, Dialect, Trial

ServiceName = Literal[
    "groq", "together", "dashscope", "siliconflow", "moonshot", "zhipu", "nebius", "doubleword", "parasail"
]
_MB, _GB = 1 << 20, 1 << 30
_CHAT = "/v1/chat/completions"
_TRIAL = Trial("/v1/chat/ds-test", "batch-test-model", 100, _MB)
_OPENAI = DIALECTS["openai"]

SERVICES: dict[ServiceName, Dialect] = {
    # console.groq.com/docs/batch (D): windows from 24h to 7d, of which only the ends are named; a batch completes
    # although lines of it failed validation; lists are paged by cursor. https://api.groq.com/openai/v1
    "groq": _OPENAI._replace(
        name="groq",
        prefix="/openai/v1",
        windows={"24h": DAY_SECONDS, "7d": 7 * DAY_SECONDS},
        file_id="file_01j{base32}",
        output_id="file_01j{base32}",
        batch_id="batch_01j{base32}",
        oddities=("bare_errors",),
        codes={"method": "invalid_method"},
        skips_bad_lines=True,
        pages_by_cursor=True,
    ),
    # docs.together.ai/docs/inference/batch/overview (D). Its own way to upload is not emulated.
    "together": _OPENAI._replace(name="together", max_file_bytes=100 * _MB, enqueued_tokens=30_000_000_000),
    # help.aliyun.com, "OpenAI-compatible: Batch" (D), with an endpoint for trials; failed requests in the output file
    # and counts.failed 0 (W). https://dashscope.aliyuncs.com/compatible-mode/v1
    "dashscope": _OPENAI._replace(
        name="dashscope",
        prefix="/compatible-mode/v1",
        endpoints={**_OPENAI.endpoints, _TRIAL.endpoint: _CHAT},
        trial=_TRIAL,
        max_file_bytes=100 * _MB,
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
    # platform.kimi.ai/docs/api/batch-create (D): 100 MB; windows from 12h to 7d by way of a copy of it.
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
    # docs.doubleword.ai (D).
    "doubleword": _OPENAI._replace(name="doubleword", windows={"24h": DAY_SECONDS, "1h": 3_600}),
    # pypi.org/project/openai-batch (D): nothing that is not OpenAI's is known.
    "parasail": _OPENAI._replace(name="parasail"),
}
