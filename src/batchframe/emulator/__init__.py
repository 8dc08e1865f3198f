"""A local batch service over HTTP: files, batches, validation, execution, faults, and a ledger.

It imports nothing else of batchframe, so that a mistake of the client cannot agree with itself. Each package imports
only those below it (``tests/emulator/test_layers.py``):

=============  ===============================================================================
_entry         serve, create_app: the entry points
_http          routes, views and the control plane; replies, uploads, faults of the connection
_service       the service's state and its files on disk; checks of what comes in
_batches       a batch from validation to result files; the objects that clients see
_endpoints     one module per endpoint, listed in its registry: the checks of a body, its answer
_faults        what can go wrong, and how often
_config        settings, dialects and the facts of the services
_model         the rule-based model: its texts, vectors and token counts
=============  ===============================================================================

``_errors`` has the services' errors, ``_json`` reads and digests JSON. A new endpoint is one module in ``_endpoints``,
and its name in the registry.
"""

from __future__ import annotations

from batchframe.emulator._config.settings import Seconds, Settings
from batchframe.emulator._endpoints.registry import answer
from batchframe.emulator._entry import create_app, serve
from batchframe.emulator._json import body_digest

__all__ = ["Seconds", "Settings", "answer", "body_digest", "create_app", "serve"]
