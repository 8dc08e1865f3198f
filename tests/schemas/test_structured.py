"""Typed answers over real HTTP: ``response_format`` determines the dtype of the response column."""

from __future__ import annotations

import datetime as dt  # noqa: TC003  (pydantic reads the annotations)
import json
from typing import Literal, Optional

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import BaseModel, Field

import batchframe as bf
from batchframe.emulator import answer

ARGUMENTS = {"model": "gpt-4o-mini", "poll_seconds": 0.05, "settle_seconds": 0.5}
REVIEWS = pl.DataFrame({"text": ["I love it, great sound.", "Terrible, it broke after a week.", None]})
LABEL = pl.Struct({"label": pl.Enum(["positive", "negative"])})


class Entity(BaseModel):
    name: str
    kind: Literal["person", "place"]
    born: Optional[dt.date] = None  # noqa: UP045  (as people write it)
    weight: float = Field(ge=0)


class Entities(BaseModel):
    entities: list[Entity]


ENTITIES = pl.Struct(
    {
        "entities": pl.List(
            pl.Struct(
                {"name": pl.String, "kind": pl.Enum(["person", "place"]), "born": pl.Date, "weight": pl.Float64},
            )
        )
    }
)


@pytest.fixture
def run(client):
    def call(frame=REVIEWS, prompt="Classify: {text}", **options):
        with pytest.warns(bf.BatchframeWarning):  # a row is null
            return bf.run(frame, prompt, client=client, **ARGUMENTS | options)

    return call


def contents(prompt, **options):
    """Return the service's answers, from the emulator's pure function."""
    lines = bf.requests(REVIEWS, prompt, model="gpt-4o-mini", **options)["request"].drop_nulls()
    return [json.loads(answer(json.loads(line)["body"])["choices"][0]["message"]["content"]) for line in lines]


def test_rows_are_classified_into_an_enum(run):
    out = run(response_format=LABEL)
    assert out.schema == bf.result_schema(REVIEWS, "Classify: {text}", model="m", response_format=LABEL)
    assert out["response"].to_list() == [{"label": "positive"}, {"label": "negative"}, None]
    assert out["response"].struct.field("label").dtype == pl.Enum(["positive", "negative"])


def test_entities_become_lists_of_structs(run):
    out = run(prompt="Entities of: {text}", response_format=Entities)
    assert out["response"].dtype == ENTITIES
    values = contents("Entities of: {text}", response_format=Entities)
    for value, row in zip(values, out["response"], strict=False):
        assert Entities.model_validate(row) == Entities.model_validate(value)
    flat = out.select(pl.col("response").struct.field("entities")).explode("entities").drop_nulls().unnest("entities")
    assert flat.columns == ["name", "kind", "born", "weight"]


def test_request_contains_the_strict_schema():
    line = json.loads(bf.requests(REVIEWS, "{text}", model="m", response_format=LABEL)["request"][0])
    assert line["body"]["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "response",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"label": {"type": "string", "enum": ["positive", "negative"]}},
                "required": ["label"],
                "additionalProperties": False,
            },
        },
    }


@pytest.mark.parametrize("rows", [0, 1], ids=["no rows", "no row sent"])
def test_dtype_without_requests(client, rows):
    frame = pl.DataFrame({"text": [None] * rows}, schema={"text": pl.String})
    options = {"response_format": Entities, "on_null": "skip"}
    if rows:
        with pytest.warns(bf.BatchframeWarning):
            out = bf.run(frame, "{text}", client=client, **ARGUMENTS, **options)
    else:
        out = bf.run(frame, "{text}", client=client, **ARGUMENTS, **options)
    assert out["response"].dtype == ENTITIES
    assert out["response"].null_count() == rows


def test_dtype_of_an_unfinished_run(emu):
    emu.configure(progression="stepped")
    run = bf.submit(REVIEWS, "{text}", client=emu.client(), response_format=Entities, **ARGUMENTS)
    pending = run.result()
    assert pending["error"].struct.field("code").to_list() == ["pending", "pending", "null_input"]
    assert pending["response"].null_count() == 3
    assert pending["response"].dtype == run.scan().collect_schema()["response"] == ENTITIES
    emu.configure(progression="instant")
    assert run.wait().succeeded == 2


def test_dtype_of_an_opened_run(client, run):
    every = pl.Struct(
        {
            "a": pl.Int8, "b": pl.Float32, "c": pl.Categorical, "d": pl.Datetime("ms", "Europe/Berlin"),
            "e": pl.Datetime("us"), "f": pl.Duration("ms"), "g": pl.Time, "h": pl.Decimal(9, 2),
            "i": pl.Array(pl.Int64, 2), "j": pl.List(pl.Date), "k": pl.Struct({"l": pl.Boolean}), "m": pl.UInt64,
            "n": pl.Enum(["x"]),
        }
    )  # fmt: skip
    out = run(response_format=every)
    path = bf.submit(REVIEWS, "Classify: {text}", client=client, response_format=every, **ARGUMENTS).path
    opened = bf.open_run(path).result()
    assert opened["response"].dtype == every
    assert opened["response"].null_count() == 1
    assert_frame_equal(opened, out)


def test_same_requests_with_another_type_reuse_the_run(emu, run):
    typed = run(response_format=LABEL)
    line = json.loads(
        bf.requests(REVIEWS, "Classify: {text}", model="gpt-4o-mini", response_format=LABEL)["request"][0]
    )
    text = run(response_format=line["body"]["response_format"])
    other = run(response_format=pl.Struct({"label": pl.Enum(["positive", "negative"])}))
    assert text["response"].dtype == pl.String
    assert [json.loads(response) for response in text["response"][:2]] == typed["response"].to_list()[:2]
    assert_frame_equal(other, typed)
    assert emu.ledger()["by_custom_id"] == {"row-0": 1, "row-1": 1}


def test_run_parquet_has_the_dtype(client, tmp_path):
    REVIEWS.head(2).write_parquet(tmp_path / "in.parquet")
    bf.run_parquet(
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        "{text}",
        response_format=Entities,
        client=client,
        **ARGUMENTS,
    )
    assert pl.read_parquet_schema(tmp_path / "out.parquet")["response"] == ENTITIES


def test_dtype_of_a_lazy_result(run):
    out = run(REVIEWS.lazy(), response_format=LABEL)
    assert out.collect_schema()["response"] == LABEL
    labels = out.select(pl.col("response").struct.field("label")).collect()
    assert labels["label"].to_list() == ["positive", "negative", None]


def failed(emu, **options):
    with pytest.warns(bf.BatchframeWarning, match="2 of 2 rows did not succeed"):
        out = bf.run(REVIEWS.head(2), "{text}", client=emu.client(), response_format=Entities, **ARGUMENTS, **options)
    assert out["response"].dtype == ENTITIES
    assert out["response"].null_count() == 2
    assert out["usage"].null_count() == 0
    return out["error"].struct.unnest().rows(), out


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_incomplete_answer_gives_the_reason(emu, reason):
    emu.row_fault(reason, attempts=None)
    errors, out = failed(emu, include="raw")
    assert out["finish_reason"].to_list() == [reason, reason]
    assert {code for code, _ in errors} == {"invalid_response"}
    limit = "token limit" if reason == "length" else "content filter"
    assert all(
        message.startswith(f"the answer was cut by the {limit} (finish_reason {reason})") for _, message in errors
    )
    if reason == "length":
        assert all('{"entities":' in json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] for line in out["raw"])  # fmt: skip  # noqa: E501


def test_refusal_is_reported(emu):
    emu.row_fault("refusal", attempts=None)
    errors, _ = failed(emu)
    assert errors == [("refusal", "I'm sorry, I can't assist with that.")] * 2


def test_invalid_answer_fails_without_retry(emu):
    """As with a service without strict mode: the run requested text, and is read as a type later."""
    entities = bf.requests(REVIEWS, "{text}", model="gpt-4o-mini", response_format=Entities)["request"][0]
    form = json.loads(entities)["body"]["response_format"]
    frame = REVIEWS.head(2)
    path = bf.submit(frame, "{text}", client=emu.client(), response_format=form, **ARGUMENTS).path
    assert bf.open_run(path, client=emu.client()).wait().succeeded == 2
    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    record["options"]["answer_type"] = {"name": "other", "schema": _one_number()}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    run = bf.open_run(path)
    status = run.status(refresh=False)
    assert (status.done, status.failed, status.succeeded) == (True, 2, 0)
    assert run.result()["response"].dtype == pl.Struct({"n": pl.Float64})
    assert run.errors()["code"].to_list() == ["invalid_response"] * 2
    assert run.errors()["message"].to_list() == ["$.entities: is not a property of this object"] * 2
    assert emu.ledger()["by_custom_id"] == {"row-0": 1, "row-1": 1}


def _one_number():
    return {
        "type": "object",
        "properties": {"n": {"type": "number"}},
        "required": ["n"],
        "additionalProperties": False,
    }
