"""A local batch service that speaks OpenAI's dialect: files, batches, validation, execution, faults, and a ledger.

It imports nothing of batchframe outside this package, so that a mistake of the client cannot agree with itself.
"""

from __future__ import annotations

from batchframe.emulator._config.settings import Seconds, Settings
from batchframe.emulator._endpoints.registry import answer
from batchframe.emulator._entry import create_app, serve
from batchframe.emulator._json import body_digest

__all__ = ["Seconds", "Settings", "answer", "body_digest", "create_app", "serve"]
