"""Typed answers: `response_format` → a JSON schema in strict mode → a Polars dtype, and back."""
