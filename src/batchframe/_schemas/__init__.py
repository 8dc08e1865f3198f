"""Typed answers: `response_format` → a strict JSON schema → a Polars dtype, and the decoding of answers."""
