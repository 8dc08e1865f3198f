"""The codes and sentences of validation, as OpenAI and Azure write them."""

from __future__ import annotations

from typing import NamedTuple

from batchframe.emulator._batches.batch_object import LineError


class Wording(NamedTuple):
    """One refusal; message and param are format strings."""

    code: str
    message: str
    param: str | None = None


OPENAI = {
    "json": Wording("invalid_json_line", "This line is not parseable as valid JSON."),
    "missing": Wording("missing_required_parameter", "Missing required parameter: '{value}'.", "{value}"),
    "custom_id": Wording("invalid_type", "Invalid type for 'custom_id': expected a string.", "custom_id"),
    "duplicate": Wording(
        "duplicate_custom_id",
        "The custom_id '{value}' for this request is a duplicate of another request. The custom_id parameter must be "
        "unique for each request in a batch.",
        "custom_id",
    ),
    "method": Wording("invalid_value", "Invalid value: '{value}'. Supported values are: 'POST'", "method"),
    "url": Wording("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"),
    "body": Wording("invalid_type", "Invalid type for 'body': expected an object.", "body"),
    "no_model": Wording("invalid_request", "Model parameter is required.", "body.model"),
    "model": Wording(
        "model_not_found", "The provided model '{value}' is not supported by the Batch API.", "body.model"
    ),
    "mismatch": Wording(
        "mismatched_model",
        "The model '{value}' for this request does not match the rest of the batch. Each batch must contain requests "
        "for a single model.",
        "body.model",
    ),
    "messages": Wording("invalid_request", "Messages parameter is required.", "body.messages"),
    "input": Wording("invalid_request", "Input parameter is required.", "body.input"),
    "prompt": Wording("invalid_request", "Prompt parameter is required.", "body.prompt"),
    # Seen for chat completions.
    "stream": Wording("streaming_unsupported", "{value}: Streaming is not supported in the Batch API.", "body.stream"),
    # The rule is documented; code and sentence are not.
    "last_message": Wording("invalid_request", "The last message must be the user's.", "body.messages"),
    "too_large": Wording("invalid_request", "The input file has more than {value} bytes."),
    # Codes and sentences of these are unverified; the limits are documented.
    "long_line": Wording("invalid_request", "The line has more than {value} bytes."),
    "too_many_inputs": Wording(
        "batch_input_limit_exceeded",
        "The batch has more embedding inputs than allowed. Each batch may have at most {value:,} over all its "
        "requests.",
    ),
    # Code and sentence of this one are unverified; the limit is documented.
    "too_many": Wording(
        "batch_request_limit_exceeded",
        "The batch has more requests than allowed. Each batch may have at most {value}.",
    ),
    "empty": Wording(
        "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
    ),
    "tokens": Wording(
        "token_limit_exceeded",
        "Enqueued token limit reached for {model} in organization {organization}. Limit: {limit:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed.",
    ),
    # The sentence was seen (community.openai.com/t/1002388), the code was not.
    "requests": Wording(
        "request_limit_exceeded",
        "Enqueued request limit reached for {model} in organization {organization}. Limit: {limit:,} enqueued "
        "requests. Please try again once some in_progress batches have been completed.",
    ),
    "file": Wording(
        "invalid_request",
        "Cannot find file {value}, or organization {organization} does not have access to it.",
        "file_id",
    ),
    # The service's sentence is not known.
    "purpose": Wording("invalid_request", "Invalid purpose '{value}'. Expected 'batch'.", "file_id"),
}

_SCHEMA = Wording(
    "invalid_request",
    "The schema of the input line is invalid or the deployment SKU is invalid. Please ensure the properties of the "
    "request in your input file match the expected input properties, and that the Azure OpenAI deployment SKU is "
    "globalbatch for batch API requests.",
)
_NO_DEPLOYMENT = Wording(
    "invalid_request",
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that "
    "each row in the input file has a valid deployment name specified in the 'model' field, and that the deployment "
    "name is consistent across all rows.",
)
# The sentences are those of the documentation's table of codes; no param has been seen.
AZURE = {
    "json": Wording(
        "invalid_json_line",
        "A line (or multiple) in your input file wasn't able to be parsed as valid json. Please ensure no typos, "
        "proper opening and closing brackets, and quotes as per JSON standard, and resubmit the request.",
    ),
    **dict.fromkeys(
        ("missing", "custom_id", "method", "body", "messages", "input", "prompt", "stream", "sku"), _SCHEMA
    ),
    "duplicate": Wording(
        "duplicate_custom_id",
        "The custom ID for this request is a duplicate of the custom ID in another request.",
    ),
    "url": Wording(
        "url_mismatch",
        "Either a row in your input file has a URL that doesn't match the rest of the rows, or the URL specified in "
        "the input file doesn't match the expected endpoint URL. Please ensure all request URLs are the same, and "
        "that they match the endpoint URL associated with your Azure OpenAI deployment.",
    ),
    "no_model": _NO_DEPLOYMENT,
    "byte_order_mark": _NO_DEPLOYMENT,
    "model": Wording(
        "model_not_found",
        "The Azure OpenAI model deployment name that was specified in the model property of the input file wasn't "
        "found. Please ensure this name points to a valid Azure OpenAI model deployment.",
    ),
    "mismatch": Wording(
        "model_mismatch",
        "The Azure OpenAI model deployment name that was specified in the model property of this request in the input "
        "file doesn't match the rest of the file. Please ensure that all requests in the batch point to the same AOAI "
        "model deployment in the model property of the request.",
    ),
    "too_many": Wording(
        "too_many_tasks",
        "The number of requests in the input file exceeds the maximum allowed value of {value:,}. Please ensure your "
        "total requests are under {value:,} and resubmit the job.",
    ),
    # Azure has no sentence for this: its reference lists embeddings, its how-to says they are not supported.
    "too_many_inputs": OPENAI["too_many_inputs"],
    "empty": OPENAI["empty"],
    "tokens": Wording(
        "token_limit_exceeded",
        "The number of enqueued tokens has surpassed the configured limit of {short_limit} for the deployment "
        "'{model}'. Please either increase the limit or try again once the current jobs have finished.",
    ),
    "requests": OPENAI["requests"],
    "file": OPENAI["file"],
    "purpose": OPENAI["purpose"],
    # "If you set any other value than 24h your job will fail": the error is not documented.
    "window": Wording("invalid_request", "The completion window must be '24h', but got '{value}'."),
}


def refusal(reason: str, *, is_azure: bool, line: int | None = None, **facts: object) -> LineError:
    """Make one error of a failed batch."""
    wording = (AZURE if is_azure else OPENAI)[reason]
    param = None if wording.param is None else wording.param.format(**facts)
    return LineError(wording.code, wording.message.format(**facts), param, line)
