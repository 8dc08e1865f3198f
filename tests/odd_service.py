"""A service that answers what a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import openai


class OddService:
    """Answers each GET by a function of path and query, which returns a JSON value, bytes, or a (status, …) pair."""

    def __init__(self, answer):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                asked.append((url.path.removeprefix("/v1"), query))
                found = answer(*asked[-1])
                status, found = found if isinstance(found, tuple) else (200, found)
                content = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        host, port = self._server.server_address[:2]
        self.client = openai.OpenAI(api_key="k", base_url=f"http://{host}:{port}/v1", max_retries=0)
        return self

    def __exit__(self, *_):
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
