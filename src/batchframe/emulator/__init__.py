"""A local batch service that speaks OpenAI's dialect: files, batches, validation, execution, faults, and a ledger.

It imports nothing of batchframe outside this package, so that a mistake of the client cannot agree with itself.
"""

from __future__ import annotations

from batchframe.emulator._endpoints import answer
from batchframe.emulator._json import body_digest
from batchframe.emulator._public import create_app, serve
from batchframe.emulator._settings import Seconds, Settings

__all__ = ["Seconds", "Settings", "answer", "body_digest", "create_app", "serve"]
