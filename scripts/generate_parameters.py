"""Write src/batchframe/_parameters.py from the request types of the installed openai SDK."""
# ruff: noqa: INP001  (a script, not a package)

from __future__ import annotations

from pathlib import Path

import openai
from openai.types import completion_create_params, embedding_create_params, moderation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

TYPES = {
    "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
    "/v1/completions": completion_create_params.CompletionCreateParamsBase,
    "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
    "/v1/moderations": moderation_create_params.ModerationCreateParams,
    "/v1/responses": response_create_params.ResponseCreateParamsBase,
}
TARGET = Path(__file__).parents[1] / "src" / "batchframe" / "_parameters.py"


def generate() -> str:
    """Return the module's source."""
    lines = [
        f'"""The parameters of each endpoint in openai {openai.__version__}. Written by a script, not by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "PARAMETERS: dict[str, frozenset[str]] = {",
    ]
    for endpoint, type_ in TYPES.items():
        lines += [f'    "{endpoint}": frozenset(', "        {"]
        lines += [f'            "{name}",' for name in sorted(set(type_.__annotations__) | _streams(type_))]
        lines += ["        }", "    ),"]
    return "\n".join([*lines, "}", ""])


def _streams(type_: type) -> set[str]:
    """Return the names that concern streaming: the SDK keeps ``stream`` in subclasses."""
    return {"stream", "stream_options"} if "stream_options" in type_.__annotations__ else set()


if __name__ == "__main__":
    TARGET.write_text(generate())
