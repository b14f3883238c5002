"""Documents become domain events, a frame at a time. Core.

Owns that a frame of events says what single events of `schemas.domain_event` would say, to the last byte.
"""

from datetime import datetime

import polars as pl
import polars_hash

from schemas.domain_event import EVENTS, EventType, InvoiceData

_INVOICE = {name: field.alias or name for name, field in InvoiceData.model_fields.items()}


def finalized(invoices: pl.DataFrame) -> pl.DataFrame:
    """One `invoice.finalized` (columns EVENTS) for each invoice (columns `schemas.invoice.INVOICES`)."""
    return _told(invoices, EventType.INVOICE_FINALIZED)


def paid(invoices: pl.DataFrame) -> pl.DataFrame:
    """One `invoice.paid` (columns EVENTS) for each invoice that nothing is due of from its issue on."""
    return _told(invoices, EventType.INVOICE_PAID)


def created(drafts: pl.DataFrame, *, at: datetime) -> pl.DataFrame:
    """One `invoice.created` (columns EVENTS) for each draft (columns `schemas.invoice.INVOICES`)."""
    return _told(drafts.with_columns(issued_at=pl.lit(at)), EventType.INVOICE_CREATED)


def with_ids(events: pl.DataFrame) -> pl.DataFrame:
    """The events with their ids: `schemas.domain_event.event_id` of every row (columns EVENTS).

    >>> rows = pl.DataFrame({"tenant": ["default"], "type": ["invoice.paid"], "object_id": ["42"], "version": [3]})
    >>> rows = rows.with_columns(occurred_at=pl.lit(None), data=pl.lit("{}"))
    >>> with_ids(rows)["id"].item()
    '552a3a523602e91d26f94e811eb20710'
    """
    parts = [pl.lit("event"), *(pl.col(name).cast(pl.String) for name in ("tenant", "type", "object_id", "version"))]
    pieces = [piece for part in parts for piece in (part.str.len_bytes().cast(pl.String), pl.lit(":"), part)]
    key = events.select(key=pl.concat_str(pieces))
    ids = key.select(id=polars_hash.col("key").chash.sha2_256().str.slice(0, 32)).to_series()
    return events.with_columns(ids).select(pl.col(name).cast(kind) for name, kind in EVENTS.items())


def _told(invoices: pl.DataFrame, event_type: EventType) -> pl.DataFrame:
    data = pl.struct(pl.col(name).alias(alias) for name, alias in _INVOICE.items()).struct.json_encode()
    return with_ids(
        invoices.select(
            "tenant",
            pl.lit(event_type.value).alias("type"),
            pl.col("id").alias("object_id"),
            "version",
            pl.col("issued_at").alias("occurred_at"),
            data.alias("data"),
        )
    )
