"""Create the run, or the renderer, of a checked call."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from batchframe._providers.service import Service
from batchframe._runs.create import create, renderer

if TYPE_CHECKING:
    import polars as pl

    from batchframe._api.option_table import Options
    from batchframe._requests.renderer import Renderer
    from batchframe._runs.run import Run


def run_of(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Run:
    """Return the run of a call: a new one, or an existing one with the same requests."""
    service = Service(options.client, options.provider)
    with ExitStack() as failing:
        failing.callback(service.close)
        run = create(
            frame,
            options.request_spec(prompt),
            options.run_settings(),
            service,
            run_dir=options.run_dir,
            name=options.name,
            dedupe=options.dedupe,
            reuse=options.reuse,
        )
        failing.pop_all()  # the run closes it from now on
    return run


def renderer_of(frame: pl.DataFrame | pl.LazyFrame, prompt: Any, options: Options) -> Renderer:
    """Return the renderer of a call. Sends nothing and needs no key."""
    provider = Service(options.client, options.provider).provider
    return renderer(frame, options.request_spec(prompt), options.run_settings(), provider)
