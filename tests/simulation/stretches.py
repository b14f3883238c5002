"""Entries and postings as frames, made into the columns that a database hands out."""

from typing import Any

import numpy as np
import polars as pl

from invoicing.ledger.stretch import Entries, Lines, Stretch
from schemas.texts import texts_of

DIGESTS = ("id", "content_digest", "previous_hash", "hash")


def stretch_of(tenant: str, entries: pl.DataFrame, postings: pl.DataFrame) -> Stretch:
    """The stretch of these entries (columns `CHAINED`) and postings (with the `sequence` of their entry)."""
    found = {
        name: _bytes(entries[name], 16 if name == "id" else 32) if name in DIGESTS else _column(entries[name])
        for name in Entries._fields
    }
    return Stretch(tenant, Entries(**found), Lines(**{name: _column(postings[name]) for name in Lines._fields}))


def _column(series: pl.Series) -> Any:
    if series.dtype == pl.String:
        texts = [text.encode() for text in series.fill_null("").to_list()]
        return texts_of(b"\0".join(texts), len(texts))
    return series.to_physical().cast(pl.Int64).to_numpy().copy()


def _bytes(series: pl.Series, width: int) -> Any:
    return np.frombuffer(bytes.fromhex("".join(series)), np.uint8).reshape(len(series), width)
