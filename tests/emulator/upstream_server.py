"""A small OpenAI-compatible server, independent of the emulator. Prompts control what it does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# Replies with status 200 that are not JSON: the bytes, and extra headers.
UNREADABLE = {
    "page": (b"<html>hello</html>", {}),
    # Python's json module writes this for a missing logprob, and so does vLLM.
    "nan": (b'{"object": "chat.completion", "choices": [], "logprob": NaN}', {}),
    "deep": (b"[" * 100_000 + b"]" * 100_000, {}),
    "half-a-pair": (rb'{"content": "\ud83d"}', {}),
    "latin-1": (b'{"content": "\xe4"}', {}),
    "cut": (b'{"object": "chat.comp', {"Content-Length": "1000"}),
    "no-gzip": (b"{}", {"Content-Encoding": "gzip"}),
    "nothing": (b"", {}),
}


def error(status, message, headers=None):
    return JSONResponse({"error": {"message": message, "type": "x", "param": None, "code": None}}, status, headers)


class UpstreamServer:
    """Counts requests. The first word of a prompt is a command, the rest is echoed."""

    def __init__(self):
        self.seen = Counter()
        self.at = {}
        self.paths = Counter()
        self.keys = set()
        self.bodies = {}
        self.now = self.most = 0
        self.release = threading.Event()
        self.seconds = 0.0
        app = Starlette(routes=[Route("/v1/{path:path}", self.answer, methods=["POST"])])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    async def answer(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(request)
        finally:
            self.now -= 1

    async def _answer(self, request):
        raw = await request.body()
        body = await request.json()
        prompt = body["messages"][0]["content"] if "messages" in body else body["input"]
        self.seen[prompt] += 1
        self.at.setdefault(prompt, []).append(time.monotonic())
        self.paths[request.url.path] += 1
        self.keys.add(request.headers.get("authorization"))
        self.bodies[prompt] = raw
        await asyncio.sleep(self.seconds)
        what = prompt.split()[0]
        if what == "busy" and self.seen[prompt] <= 2:
            return error(429, "later", {"Retry-After": "0.3"})
        if what == "broken":
            return error(500, "always")
        if what == "down":
            return Response("<html>down</html>", 503)
        if what == "bad":
            return error(400, "no such thing")
        if what in UNREADABLE:
            content, headers = UNREADABLE[what]
            return Response(content, headers=headers)
        if what == "hold":
            while not self.release.is_set():  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.01)
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choices = [{"index": 0, "message": {"role": "assistant", "content": prompt}, "finish_reason": "stop"}]
        answered = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}
        return JSONResponse(answered, headers={"x-request-id": f"up-{prompt}"})

    @contextlib.contextmanager
    def running(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        try:
            yield self
        finally:
            self.release.set()
            self._server.should_exit = True
            self._thread.join()
