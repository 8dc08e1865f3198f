"""Run a prompt over every row of a frame with the OpenAI Batch API, and get a frame back."""

from __future__ import annotations

from batchframe import _frame
from batchframe._account import batches
from batchframe._calls import open_run, run, submit
from batchframe._exceptions import (
    APICallError,
    AuthenticationError,
    BatchframeError,
    BatchframeWarning,
    ConnectionFailedError,
    DamagedRunError,
    InputError,
    InputFileRejectedError,
    InvalidCallError,
    MissingExtraError,
    NotVisibleError,
    OptionError,
    RateLimitError,
    ResultsError,
    RowsFailedError,
    RunError,
    RunMismatchError,
    RunNotFoundError,
    RunPendingError,
    RunStoppedError,
    ServiceError,
    StoreVersionError,
    TemplateError,
)
from batchframe._limits import Limits
from batchframe._parquet import run_parquet
from batchframe._previews import requests, result_schema
from batchframe._providers import Provider
from batchframe._reading import read_batch
from batchframe._run import Run
from batchframe._run_results import RunStatus
from batchframe._runs import list_runs

__all__ = [
    "APICallError",
    "AuthenticationError",
    "BatchframeError",
    "BatchframeWarning",
    "ConnectionFailedError",
    "DamagedRunError",
    "InputError",
    "InputFileRejectedError",
    "InvalidCallError",
    "Limits",
    "MissingExtraError",
    "NotVisibleError",
    "OptionError",
    "Provider",
    "RateLimitError",
    "ResultsError",
    "RowsFailedError",
    "Run",
    "RunError",
    "RunMismatchError",
    "RunNotFoundError",
    "RunPendingError",
    "RunStatus",
    "RunStoppedError",
    "ServiceError",
    "StoreVersionError",
    "TemplateError",
    "batches",
    "list_runs",
    "open_run",
    "read_batch",
    "requests",
    "result_schema",
    "run",
    "run_parquet",
    "submit",
]

# Representations, tracebacks and pickles say what users import, and not where it is kept.
for _name in __all__:
    globals()[_name].__module__ = __name__

_frame.register()
