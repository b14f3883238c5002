"""Single documents become journal entries. Core."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from invoicing.invoices.lifecycle import Post
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, Journal, entries_of


def journal_of_posts(
    posts: Sequence[Post], *, tenant: str, customer: str, currency: str, booked_at: datetime
) -> Journal:
    """The entries of documents of one customer, in one currency. Raises ValueError when one does not balance."""
    documents = [
        {
            "tenant": tenant, "template": post.template, "customer": customer, "document_kind": post.kind,
            "document_id": post.document, "document_version": post.version, "part": 1,
            "relates_to_period": post.booking.relates_to_period, "effective_at": post.booking.effective_at,
            "description": post.description,
        }
        for post in posts
    ]  # fmt: skip
    amounts = [
        (place, name, currency, dimension, minor)
        for place, post in enumerate(posts)
        for name, dimension, minor in post.amounts
    ]
    return entries_of(
        pl.DataFrame(documents, schema=DOCUMENTS), pl.DataFrame(amounts, schema=AMOUNTS, orient="row"),
        booked_at=booked_at,
    )  # fmt: skip


def joined(*journals: Journal) -> Journal:
    """Several journals as one, in their order."""
    return Journal(pl.concat([each.entries for each in journals]), pl.concat([each.postings for each in journals]))
