"""No key, token or URL credential reaches the disk, a log, a representation or an exception."""

from __future__ import annotations

import contextlib
import logging

import openai
import polars as pl
import pytest

import batchframe as bf

KEY, TOKEN, PASSWORD = "sk-very-secret-123", "entra-very-secret-456", "url-very-secret-789"
SECRETS = [KEY, TOKEN, PASSWORD]
FRAME = pl.DataFrame({"n": range(12)})


def with_key(emu):
    return openai.OpenAI(api_key=KEY, base_url=emu.base_url)


def with_token(emu):
    return openai.AzureOpenAI(azure_ad_token=TOKEN, azure_endpoint=emu.endpoint, api_version="2024-10-21")


def texts_of(folder):
    return [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("dialect", "make"), [("openai", with_key), ("azure", with_token)])
def test_no_output_contains_a_secret(tmp_path, caplog, dialect, make, emulate):
    caplog.set_level(logging.DEBUG, logger="batchframe")
    told: list[str] = []
    with emulate(dialect) as emu, make(emu) as client:
        emu.row_fault("rate_limited", custom_ids=["row-3"])
        emu.row_fault("status", status=400, custom_ids=["row-5"])
        emu.fault("create_batch", "reset_after")
        emu.fault("retrieve_batch", "status", status=500, times=4)
        run = bf.submit(FRAME, "Repeat {n}", model="gpt-4o-mini", client=client, run_dir=tmp_path / "run",
                        poll_seconds=0.02, settle_seconds=0.2, limits=bf.Limits(max_requests=5))  # fmt: skip
        run.listen = lambda event: told.append(repr(event))
        told += [repr(run), repr(run.wait()), str(run.explain(5)), repr(run.batches().rows()), repr(run._settings)]
        told.append(repr(bf.batches(client).rows()))
        run.retry(codes="server_error", temperature=0)
        # The service may repeat in its words what it was sent.
        for number, (status, call) in enumerate([(401, "create_file"), (403, "create_batch"), (400, "create_batch")]):
            emu.fault(call, "status", status=status, times=9)
            with pytest.raises(bf.BatchframeError) as caught:
                bf.run(FRAME, f"Say {number} {{n}}", model="gpt-4o-mini", client=client, poll_seconds=0.02,
                       run_dir=tmp_path / f"run-{number}")  # fmt: skip
            told += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
            emu.clear_faults()
        with contextlib.suppress(bf.BatchframeError), pytest.warns(bf.BatchframeWarning) as warned:
            bf.run(
                FRAME.with_columns(n=None), "Repeat {n}", model="gpt-4o-mini", client=client, run_dir=tmp_path / "nulls"
            )
        told += [str(warning.message) for warning in warned]
    told += [record.getMessage() for record in caplog.records if record.name.startswith("batchframe")]
    told += texts_of(tmp_path)
    told += [str(path) for path in tmp_path.rglob("*")]
    assert len(told) > 40
    assert not [text[:200] for text in told for secret in SECRETS if secret in text]


def test_no_output_contains_credentials_of_a_url(emu, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="batchframe")
    client = openai.OpenAI(api_key=KEY, base_url=emu.base_url.replace("://", f"://user:{PASSWORD}@"))
    with pytest.raises(bf.AuthenticationError) as caught:  # they take the place of the key
        bf.run(FRAME, "Repeat {n}", model="gpt-4o-mini", client=client, run_dir=tmp_path / "run")
    run = bf.open_run(tmp_path / "run")
    told = [
        str(caught.value),
        repr(vars(caught.value)),
        repr(run),
        repr(run.status(refresh=False)),
        *texts_of(tmp_path),
    ]
    told += [record.getMessage() for record in caplog.records if record.name.startswith("batchframe")]
    assert not [text[:200] for text in told for secret in SECRETS if secret in text]
