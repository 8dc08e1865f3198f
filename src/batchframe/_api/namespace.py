"""``frame.batch``: the calls of this package as methods of Polars frames.

The options in the signatures are written by ``scripts/generate_signatures.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import polars as pl

from batchframe._api import calls, previews
from batchframe._api.options import options_of

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    import openai
    from typing_extensions import Unpack

    from batchframe._api.arguments import (
        Endpoint,
        EndpointParameters,
        Images,
        Include,
        Prompt,
        ResponseFormat,
    )
    from batchframe._providers.limits import Limits
    from batchframe._providers.profiles import Provider
    from batchframe._runs.run import Run

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


# Polars caches the namespace on the frame, which makes a reference cycle. So it must hold nothing but the frame.
class BatchNamespace(Generic[Frame]):
    """The namespace ``frame.batch``: run a prompt over the rows of this frame.

    Parameters
    ----------
    frame
        The frame.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame: Frame = frame

    def run(
        self,
        prompt: Prompt,
        *,
        model: str,
        system: str | pl.Expr | None = None,
        images: Images | None = None,
        image_detail: Literal["low", "high", "auto", "original"] | None = None,
        endpoint: Endpoint | None = "/v1/chat/completions",
        response_format: ResponseFormat | None = None,
        custom_id: str | None = None,
        client: openai.OpenAI | None = None,
        provider: str | Provider | None = None,
        limits: Limits | None = None,
        max_attempts: int | None = 3,
        pilot: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        dedupe: bool | None = False,
        reuse: Run | str | os.PathLike[str] | None = None,
        on_null: Literal["skip", "render", "raise"] | None = "skip",
        include: Include | Collection[Include] | None = None,
        prefix: str | None = None,
        poll_seconds: float | None = None,
        settle_seconds: float | None = 60.0,
        timeout_seconds: float | None = None,
        progress: bool | None = None,
        cleanup: Literal["when_done", "never"] | None = "never",
        metadata: dict[str, str] | None = None,
        completion_window: str | None = None,
        expires_after: int | None = None,
        extra_body: dict[str, Any] | None = None,
        **parameters: Unpack[EndpointParameters],
    ) -> Frame:
        """Run a prompt over every row, wait, and return the frame with the answers: `batchframe.run`."""
        return calls.run(self._frame, prompt, **options_of(locals()))

    def submit(
        self,
        prompt: Prompt,
        *,
        model: str,
        system: str | pl.Expr | None = None,
        images: Images | None = None,
        image_detail: Literal["low", "high", "auto", "original"] | None = None,
        endpoint: Endpoint | None = "/v1/chat/completions",
        response_format: ResponseFormat | None = None,
        custom_id: str | None = None,
        client: openai.OpenAI | None = None,
        provider: str | Provider | None = None,
        limits: Limits | None = None,
        max_attempts: int | None = 3,
        pilot: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        dedupe: bool | None = False,
        reuse: Run | str | os.PathLike[str] | None = None,
        on_null: Literal["skip", "render", "raise"] | None = "skip",
        include: Include | Collection[Include] | None = None,
        prefix: str | None = None,
        poll_seconds: float | None = None,
        settle_seconds: float | None = 60.0,
        timeout_seconds: float | None = None,
        progress: bool | None = None,
        cleanup: Literal["when_done", "never"] | None = "never",
        metadata: dict[str, str] | None = None,
        completion_window: str | None = None,
        expires_after: int | None = None,
        extra_body: dict[str, Any] | None = None,
        **parameters: Unpack[EndpointParameters],
    ) -> Run:
        """Start a run and return it: `batchframe.submit`."""
        return calls.submit(self._frame, prompt, **options_of(locals()))

    def requests(
        self,
        prompt: Prompt,
        *,
        model: str,
        system: str | pl.Expr | None = None,
        images: Images | None = None,
        image_detail: Literal["low", "high", "auto", "original"] | None = None,
        endpoint: Endpoint | None = "/v1/chat/completions",
        response_format: ResponseFormat | None = None,
        custom_id: str | None = None,
        client: openai.OpenAI | None = None,
        provider: str | Provider | None = None,
        limits: Limits | None = None,
        max_attempts: int | None = 3,
        pilot: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        dedupe: bool | None = False,
        reuse: Run | str | os.PathLike[str] | None = None,
        on_null: Literal["skip", "render", "raise"] | None = "skip",
        include: Include | Collection[Include] | None = None,
        prefix: str | None = None,
        poll_seconds: float | None = None,
        settle_seconds: float | None = 60.0,
        timeout_seconds: float | None = None,
        progress: bool | None = None,
        cleanup: Literal["when_done", "never"] | None = "never",
        metadata: dict[str, str] | None = None,
        completion_window: str | None = None,
        expires_after: int | None = None,
        extra_body: dict[str, Any] | None = None,
        **parameters: Unpack[EndpointParameters],
    ) -> pl.DataFrame:
        """Return the exact request lines without sending them: `batchframe.requests`."""
        return previews.requests(self._frame, prompt, **options_of(locals()))


# Copied here, since a second text would drift from the first.
for _method, _call in (
    (BatchNamespace.run, calls.run),
    (BatchNamespace.submit, calls.submit),
    (BatchNamespace.requests, previews.requests),
):
    _method.__doc__ = _call.__doc__


def register() -> None:
    """Register the namespace on DataFrame and LazyFrame. Call it once: Polars warns if a name is taken."""
    pl.api.register_dataframe_namespace("batch")(BatchNamespace)
    pl.api.register_lazyframe_namespace("batch")(BatchNamespace)
