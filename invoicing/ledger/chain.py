"""The chain over a tenant's journal entries, and what it is made of. Core.

Owns the canonical texts: what an entry says, and how its hash follows from the hash before it. They are texts of
known form, so that an auditor can make them with `sha256sum` and no program of ours; docs/ledger.md shows how. A change
of them would change every digest; a test holds them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.identity import prefixed, sha256_of

_ENTRY_TEXTS = ("tenant", "document_kind", "document_id", "description")
_MICROS = pl.Datetime("us", "UTC")


def content_digests(entries: pl.DataFrame, postings: pl.DataFrame) -> pl.Series:
    """The digest of what each entry says, as 64 hexadecimal digits.

    `postings` stand in the order of `entries`, by position, under an `entry` column: the row number of their entry.
    An entry without postings is digested without them.

    The text of an entry is one line of its own, and one for each posting; a text of free form has its length in bytes
    before it:

        P02|1|1|2026-01-31|||7:default7:invoice32:c1cb...ed14:Invoice for UA
        1|1100|12000|USD|2:UA0:
        2|4010|-12000|USD|2:UA0:
    """
    heads = entries.select(
        pl.concat_str(
            "template", "document_version", "part", pl.col("effective_at").cast(pl.String),
            pl.col("relates_to").fill_null(""), pl.col("relates_to_period").fill_null(""), separator="|",
        ) + "|" + pl.concat_str(*[prefixed(pl.col(name)) for name in _ENTRY_TEXTS])
    ).to_series()  # fmt: skip
    lines = postings.select(
        pl.concat_str("position", "account", "amount_minor", "currency", separator="|")
        + pl.concat_str(pl.lit("|"), prefixed(pl.col("customer")), prefixed(pl.col("dimension")), pl.lit("\n"))
    ).to_series()
    bodies = _joined(lines, np.searchsorted(postings["entry"].to_numpy(), np.arange(entries.height + 1)))
    whole = pl.DataFrame({"head": heads, "body": bodies})
    return whole.select(sha256_of(pl.concat_str("head", pl.lit("\n"), "body"))).to_series()


def content_text(entry: Mapping[str, Any], postings: Iterable[Mapping[str, Any]]) -> str:
    """The text of one entry, whose digest `content_digests` makes; its postings stand by position.

    >>> from datetime import date
    >>> entry = {"template": "P02", "document_version": 1, "part": 1, "effective_at": date(2026, 1, 31),
    ...          "relates_to": None, "relates_to_period": None, "tenant": "default", "document_kind": "invoice",
    ...          "document_id": "c1cb", "description": "Invoice for UA"}
    >>> leg = {"position": 1, "account": 1100, "amount_minor": 12000, "currency": "USD", "customer": "UA",
    ...        "dimension": ""}
    >>> print(content_text(entry, [leg]), end="")
    P02|1|1|2026-01-31|||7:default7:invoice4:c1cb14:Invoice for UA
    1|1100|12000|USD|2:UA0:
    """
    plain = (entry["template"], entry["document_version"], entry["part"], entry["effective_at"],
             entry["relates_to"] or "", entry["relates_to_period"] or "")  # fmt: skip
    lines = ["|".join(map(str, plain)) + "|" + "".join(_prefixed(entry[name]) for name in _ENTRY_TEXTS)]
    lines += [
        f"{leg['position']}|{leg['account']}|{leg['amount_minor']}|{leg['currency']}|"
        + _prefixed(leg["customer"]) + _prefixed(leg["dimension"])
        for leg in postings
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def hash_texts(entries: pl.DataFrame) -> pl.Expr:
    """What each entry's hash is of: the hash before, the content's digest, the sequence and the microsecond of posting.

    Takes the columns of `schemas.journal.CHAINED`.
    """
    micros = entries["booked_at"].cast(_MICROS).to_physical()
    sequence = pl.col("sequence").cast(pl.String)
    return pl.concat_str("previous_hash", "content_digest", sequence, pl.lit("|"), pl.lit(micros).cast(pl.String))


def chained(entries: pl.DataFrame, *, after: int, previous_hash: str, booked_from: datetime | None) -> pl.DataFrame:
    """New entries of one tenant with their place in its chain (columns `schemas.journal.CHAINED`), in their order.

    `after` and `previous_hash` are the sequence and hash of the last entry that is posted, 0 and `GENESIS` before the
    first. An entry is booked no earlier than the one before it, `booked_from`: clocks of two machines may differ.
    """
    micros = np.maximum.accumulate(entries["booked_at"].cast(_MICROS).to_physical().to_numpy())
    if booked_from is not None:
        micros = np.maximum(micros, pl.Series([booked_from]).cast(_MICROS).to_physical().item())
    sequences = range(after + 1, after + 1 + entries.height)
    contents = entries["content_digest"].to_list()
    hashes, last, sha256 = [], previous_hash, hashlib.sha256
    for content, sequence, micro in zip(contents, sequences, micros.tolist(), strict=True):
        # each hash needs the one before: the only loop over entries
        last = sha256(f"{last}{content}{sequence}|{micro}".encode()).hexdigest()
        hashes.append(last)
    return entries.with_columns(
        pl.Series("booked_at", micros).cast(_MICROS),
        pl.Series("sequence", sequences, pl.Int64),
        pl.Series("previous_hash", [previous_hash, *hashes[:-1]][: len(hashes)], pl.String),
        pl.Series("hash", hashes, pl.String),
    )


def _prefixed(part: str) -> str:
    return f"{len(part.encode())}:{part}"


def _joined(lines: pl.Series, starts: npt.NDArray[np.int64]) -> pl.Series:
    """Consecutive lines as one text an entry, without copying them: Arrow's offsets, taken at the entries' starts."""
    array = lines.to_arrow()
    array = array.cast(pa.large_string()) if array.type != pa.large_string() else array
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if len(array) == 0:
        offsets = np.zeros(1, np.int64)
    chosen = np.ascontiguousarray(offsets[starts])
    values = array.buffers()[2] or pa.py_buffer(b"")
    texts = pa.LargeStringArray.from_buffers(len(starts) - 1, pa.py_buffer(chosen), values)
    joined = pl.from_arrow(texts)
    assert isinstance(joined, pl.Series)
    return joined
