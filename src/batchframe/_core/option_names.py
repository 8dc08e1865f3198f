"""The names of batchframe's own options. A request parameter with such a name must go through ``extra_body``."""

from __future__ import annotations

# Planned options that do not exist yet: they are refused by name, never silently ignored.
NOT_YET = frozenset({"max_cost", "prices", "keep", "base_model", "storage_options"})

OPTION_NAMES = NOT_YET | {
    "model",
    "system",
    "images",
    "image_detail",
    "endpoint",
    "response_format",
    "custom_id",
    "client",
    "provider",
    "limits",
    "max_attempts",
    "pilot",
    "run_dir",
    "name",
    "dedupe",
    "reuse",
    "on_null",
    "include",
    "prefix",
    "poll_seconds",
    "settle_seconds",
    "timeout_seconds",
    "progress",
    "cleanup",
    "metadata",
    "completion_window",
    "expires_after",
    "extra_body",
}
