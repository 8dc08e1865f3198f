"""Digests of request bodies: what tells whether two requests are the same."""

from __future__ import annotations

import polars as pl
import polars_hash as plh


def digest(body: pl.Expr) -> pl.Expr:
    """Return the first 128 bits of each body's BLAKE3 digest, as Binary.

    It is cryptographic, since the texts come from strangers and equal digests share answers.
    """
    hashed: pl.Expr = plh.col(body.meta.output_name()).chash.blake3()
    return hashed.str.slice(0, 32).str.decode("hex")


def digest_number(name: str) -> pl.Expr:
    """Return a column of digests as numbers: they take half the room of Binary, and join faster."""
    return pl.col(name).bin.reinterpret(dtype=pl.UInt128, endianness="big")


def digest_sums(digests: pl.Series) -> int:
    """Return the sum modulo 2^128 of a column of digests; nulls count nothing."""
    # The sum of a column of UInt128 wraps around, which is the modulo.
    return int(digests.bin.reinterpret(dtype=pl.UInt128, endianness="big").sum() or 0)
