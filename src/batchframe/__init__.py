"""Run a prompt over every row of a frame with the OpenAI Batch API, and get a frame back.

The packages, from the call to the core; each imports only from those below it (docs/architecture.md):

    _api        what users call
    _runs       one run, from the call to the frame, resumable
    _batches    input files -> batches -> result files
    _results    result files -> answers -> columns
    _providers  the batch services
    _store      the run's folder on disk
    _requests   rows -> request lines
    _schemas    typed answers
    _endpoints  what differs between the endpoints
    _core       exceptions, events, column names
"""

from __future__ import annotations

from batchframe._api import namespace
from batchframe._api.account import batches
from batchframe._api.calls import open_run, run, submit
from batchframe._api.list_runs import list_runs
from batchframe._api.parquet import run_parquet
from batchframe._api.previews import requests, result_schema
from batchframe._api.read_batch import read_batch
from batchframe._core.exceptions import (
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
from batchframe._providers.limits import Limits
from batchframe._providers.profiles import Provider
from batchframe._runs.run import Run
from batchframe._runs.run_reader import RunStatus

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

# Representations, tracebacks and pickles then show the name that users import.
for _name in __all__:
    globals()[_name].__module__ = __name__

namespace.register()
