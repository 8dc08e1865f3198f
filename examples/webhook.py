"""Use webhooks instead of polling: the service calls when a batch has ended, and the handler makes one pass.

    pip install starlette uvicorn
    OPENAI_WEBHOOK_SECRET=whsec_… RUN_DIR=.batchframe/… uvicorn --app-dir examples webhook:app

Subscribe to batch.completed, batch.failed, batch.expired and batch.cancelled in the service's settings. A lost call
costs only time: the next one, or any `advance`, collects that batch too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import openai
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import batchframe as bf

if TYPE_CHECKING:
    from starlette.requests import Request

EVENTS = {"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"}


async def batch_ended(request: Request) -> Response:
    """Take the run one step further if a batch has ended. Reject calls without a valid signature."""
    body = await request.body()
    try:
        event = openai.OpenAI().webhooks.unwrap(body, dict(request.headers))
    except openai.InvalidWebhookSignatureError:
        return Response("invalid signature", status_code=400)
    if event.type not in EVENTS:
        return Response(status_code=204)
    status = await run_in_threadpool(lambda: bf.open_run(os.environ["RUN_DIR"]).advance())
    return JSONResponse({"state": status.state, "pending": status.pending})


app = Starlette(routes=[Route("/", batch_ended, methods=["POST"])])
