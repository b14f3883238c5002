"""A few documents become journal entries and postings, row by row. Core.

A frame costs a tenth of a millisecond an operation, however few rows it has: where one invoice is finalised, that is
most of the time. Owns nothing: what comes out is what `invoicing.ledger.journal` makes of the same documents, which a
property holds; and whatever is to be refused is left to it.
"""

from datetime import datetime

import polars as pl

from invoicing.ledger.chain import content_text
from schemas.identity import content_digest, digest
from schemas.journal import ENTRIES, POSTINGS
from schemas.templates import PENDING, TEMPLATES

FEW = 16
"""Up to so many documents rows are faster than frames."""
_AMOUNT = ("document", "amount", "currency", "dimension", "amount_minor")
_ENTRY = [name for name in ENTRIES if name != "content_digest"]
_POSTING = [name for name in POSTINGS if name != "entry_id"]


def entries_of_few(
    documents: pl.DataFrame, amounts: pl.DataFrame, *, booked_at: datetime
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Entries and postings as `journal.entries_of` makes them, or None where that refuses, or may refuse, something."""
    rows = documents.rows(named=True)
    own: list[list[tuple[int, int, str, str, int]]] = [[] for _ in rows]
    for document, name, currency, dimension, minor in amounts.select(_AMOUNT).iter_rows():
        legs = TEMPLATES[rows[document]["template"]].legs
        matching = [(place, leg) for place, leg in enumerate(legs) if leg.amount == name and minor]
        if minor and (not matching or (minor < 0 and not all(leg.signed for _, leg in matching))):
            return None
        for place, leg in matching:
            account = (leg.account_if_negative or leg.account) if minor < 0 else leg.account
            split = leg.dimension and (PENDING if leg.dimension == PENDING else dimension)
            own[document].append((place, account.value, currency, split, minor * leg.side))
    entries, postings = [], []
    for row, legs_of_it in zip(rows, own, strict=True):
        sums: dict[str, int] = {}
        for _, _, currency, _, minor in legs_of_it:
            sums[currency] = sums.get(currency, 0) + minor
        if any(sums.values()):
            return None
        if not legs_of_it:
            continue
        legs_of_it.sort(key=lambda leg: leg[0])  # those of one leg stay in the order of their amounts
        lines = [
            (position, account, row["customer"], currency, dimension, minor)
            for position, (_, account, currency, dimension, minor) in enumerate(legs_of_it, 1)
        ]
        named = (row["tenant"], row["template"], row["document_id"], row["document_version"], row["part"])
        entry = {**row, "id": digest(*named), "booked_at": booked_at}
        text = content_text(entry, [dict(zip(_POSTING, line, strict=True)) for line in lines])
        entries.append((*(entry[name] for name in _ENTRY), content_digest(text.encode())))
        postings += [(entry["id"], *line) for line in lines]
    return (
        pl.DataFrame(entries, schema=ENTRIES, orient="row"), pl.DataFrame(postings, schema=POSTINGS, orient="row"),
    )  # fmt: skip
