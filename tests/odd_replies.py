"""A client whose service, or a proxy before it, answers some calls with something else."""

from __future__ import annotations

import importlib
import json
import re

import openai

transport = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")  # the SDK's own

PAGE = b"<html><title>Sign in</title></html>"
CALLS = {
    "list": ("GET", r"/batches$"),
    "retrieve": ("GET", r"/batches/[^/]+$"),
    "create": ("POST", r"/batches$"),
    "cancel": ("POST", r"/cancel$"),
    "upload": ("POST", r"/files$"),
    "delete": ("DELETE", r"/files/[^/]+$"),
    "download": ("GET", r"/content$"),
}


class OddReplies(transport.HTTPTransport):
    """Passes calls on to the service, but for those that are to be answered here."""

    def __init__(self):
        super().__init__()
        self._odd = {}
        self.answered = 0

    def answer(self, call, reply, *, acts=False, times=None, containing=""):
        """Answer a call with a JSON value, or a page, from now on; ``acts``: the service does it all the same."""
        self._odd[call] = [reply, acts, times, containing]

    def stop(self):
        self._odd.clear()

    def handle_request(self, request):
        for call, odd in self._odd.items():
            method, path = CALLS[call]
            reply, acts, times, containing = odd
            if request.method != method or not re.search(path, request.url.path) or times == 0:
                continue
            if containing not in request.url.path:
                continue
            odd[2] = None if times is None else times - 1
            self.answered += 1
            if acts:
                super().handle_request(request).read()
            else:
                for _ in request.stream:
                    pass
            is_page = isinstance(reply, bytes)
            headers = {"content-type": "text/html" if is_page else "application/json"}
            content = reply if is_page else json.dumps(reply).encode()
            return transport.Response(200, headers=headers, content=content, request=request)
        return super().handle_request(request)

    def client(self, emu, **options):
        http = openai.DefaultHttpxClient(transport=self)
        return emu.client(http_client=http, max_retries=0, **options)
