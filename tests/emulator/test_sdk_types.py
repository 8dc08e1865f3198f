"""The emulator's objects against the SDK's types: a field that the SDK adds fails here until the emulator has it."""

from __future__ import annotations

import json
import typing

import openai
import openai.types
import openai.types.batch
import openai.types.chat
import openai.types.responses
import pydantic
import pytest

from batchframe.testing import emulator

from .conftest import body, create, ended, jsonl, read, request, upload, wait

EMBEDDING = {"model": "text-embedding-3-small", "input": ["one", "two"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
# Valid bodies of each endpoint, and the type of the answer.
ANSWERS = {
    "/v1/chat/completions": (
        openai.types.chat.ChatCompletion,
        [body(), body(n=2, logprobs=True, top_logprobs=2), body(tools=[TOOL], tool_choice="required")],
    ),
    "/v1/responses": (
        openai.types.responses.Response,
        [{"model": "gpt-4o-mini", "input": "hi"}, {"model": "gpt-4o-mini", "input": "ho", "instructions": "be kind"}],
    ),
    "/v1/embeddings": (openai.types.CreateEmbeddingResponse, [EMBEDDING]),
    "/v1/completions": (openai.types.Completion, [{"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "logprobs": 1}]),
    "/v1/moderations": (
        openai.types.ModerationCreateResponse,
        [{"model": "omni-moderation-latest", "input": ["I will hurt you", "hello"]}],
    ),
}


def model_of(annotation):
    """Return the model in an annotation, also inside a list or an optional."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := model_of(part))), None)


def missing(value, model, path=""):
    """Return the fields of an SDK type, nested types included, that an object lacks."""
    names = []
    for name, field in model.model_fields.items():
        where = f"{path}.{name}"
        if (field.alias or name) not in value:
            names.append(where)
        inner, held = model_of(field.annotation), value.get(field.alias or name)
        if inner is not None:
            objects = held if isinstance(held, list) else [held]
            names += [one for each in objects if isinstance(each, dict) for one in missing(each, inner, where)]
    return names


def raw(answer):
    return answer.http_response.json()


def test_the_check_itself_fails_on_missing_fields():
    """If a type resolved to nothing, every object would pass."""
    assert len(openai.types.Batch.model_fields) >= 20
    assert {".status", ".request_counts.failed"} <= set(missing({"request_counts": {"total": 1}}, openai.types.Batch))
    assert missing({"data": [{}]}, openai.types.batch.Errors) == [
        *(f".data.{name}" for name in openai.types.BatchError.model_fields),
        ".object",
    ]


# The classic versions of Azure's interface show older objects on purpose (`is_old_object`).
@pytest.mark.parametrize("dialect", ["openai", "azure-v1"])
def test_batches_and_files_have_every_field_of_the_sdk(dialect):
    with emulator(dialect) as service:
        client = service.client()
        good, bad = jsonl(request("a")), jsonl(request("a", url="/v1/embeddings"))
        file_id = upload(client, good)
        file = raw(client.files.with_raw_response.retrieve(file_id))
        new_batch = raw(
            client.batches.with_raw_response.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
            )
        )
        failed = create(client, upload(client, bad)).id
        done = [raw(client.batches.with_raw_response.retrieve(wait(client, i).id)) for i in (new_batch["id"], failed)]
        listed = raw(client.batches.with_raw_response.list())
        output = raw(client.files.with_raw_response.retrieve(done[0]["output_file_id"]))
        deleted = raw(client.files.with_raw_response.delete(file_id))
    for batch in (new_batch, *done, *listed["data"]):
        assert missing(batch, openai.types.Batch) == []
        openai.types.Batch.model_validate(batch)
    assert (done[0]["usage"], done[1]["errors"]["data"]) != (None, [])
    assert {"object", "data", "first_id", "last_id", "has_more"} <= listed.keys()
    for each in (file, output):
        assert missing(each, openai.types.FileObject) == []
        openai.types.FileObject.model_validate(each)
    assert missing(deleted, openai.types.FileDeleted) == []


def test_lines_have_the_fields_of_the_specification(client):
    """The SDK has no type for a line; these are the fields of the specification's BatchRequestOutput."""
    batch = ended(client, request("a"), request("b", body(foo=1)))
    (answered,), (refused,) = read(client, batch.output_file_id), read(client, batch.error_file_id)
    for line in (answered, refused):
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert set(refused["response"]["body"]["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("dialect", ["openai", "azure-v1"])
@pytest.mark.parametrize("endpoint", ANSWERS)
def test_bodies_of_lines_match_the_sdk(dialect, endpoint):
    """Each has the fields that its type requires, as in a synchronous reply."""
    model, bodies = ANSWERS[endpoint]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": endpoint, "body": request_body}
        for number, request_body in enumerate(bodies)
    ]
    with emulator(dialect) as service:
        client = service.client()
        batch = client.batches.create(
            input_file_id=upload(client, jsonl(*lines)), endpoint=endpoint, completion_window="24h"
        )
        batch = wait(client, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", len(lines))
        answers = [line["response"]["body"] for line in read(client, batch.output_file_id)]
    for answer in answers:
        model.model_validate_json(json.dumps(answer))
