"""The frames that the steps of rating hand to each other: their columns. Core.

    usage ──quantities──▶ parts ──models──▶ slices ──chain──▶ charges
              ▲                    ▲
      segments┘       terms (one for each distinct charge of a plan)

A **term** is a charge as it stands in one version of a book for one plan, with overrides: frames name it by its place
in a list of charges. A **segment** is a stretch of a customer's billing period in which one term holds. A **part** is
what is priced at once: a segment's usage of one group, one cell and one bucket. A **slice** is a quantity sold at one
price.
"""

import polars as pl

from schemas.charge import INSTANT
from schemas.invoice import Columns
from schemas.money import AMOUNT, PRICE, QUANTITY

USAGE: Columns = {
    "subject": pl.String,
    "meter": pl.String,
    "at": INSTANT,  # an instant within the stretch that the row adds up: no segment or bucket ends within it
    "quantity": QUANTITY,  # null for UNIQUE_COUNT
    "count": pl.Int64,  # events
    "sum": QUANTITY,  # of AVG meters; else null
    "latest": pl.Struct,  # of LATEST meters: the fields schemas.tables.LATEST_ORDER; else null
    "uniques": pl.List(pl.String),  # of UNIQUE_COUNT meters: the distinct values; else null
}
"""Columns of a usage frame, in any order, also several rows of a subject, meter and instant. A dimension `region` that
a charge asks for has a column `dimension.region` (String; "" or null where an event had none). A percentage charge with
free or bounded events needs a row an event."""

SEGMENTS: Columns = {
    "place": pl.UInt32,  # the customer, by its place in the sorted list of customers
    "slot": pl.UInt32,  # the charge's place in the order of the invoice; the same for all segments of a charge
    "term": pl.UInt32,  # the place in the list of terms
    "period_start": INSTANT,  # the billing period that is billed: cut by the contract's start and end
    "period_end": INSTANT,
    "from_at": INSTANT,  # the segment: half-open
    "to_at": INSTANT,
    "numerator": pl.Int64,  # the segment's fraction of the full period, by the book's proration policy
    "denominator": pl.Int64,  # the same for all segments of a period
    "run": pl.UInt32,  # tiers run on through the segments of a run, in the order of from_at; unique over the frame
    "trial": pl.Boolean,
}
"""Columns of a segments frame, sorted by place, period_start, slot and from_at."""

PARTS: Columns = {
    "row": pl.UInt32,  # the charge row that it is part of: numbered by place, period_start, slot, group
    "segment": pl.UInt32,  # the row of the segments frame
    "term": pl.UInt32,
    "cell": pl.Int32,  # of a matrix: the cell's number, or the number of cells for the default price; else 0
    "bucket_at": INSTANT,  # of buckets with take: each; else null
    "before": QUANTITY,  # billable units of the run before this part; 0 where tiers start anew
    "quantity": QUANTITY,  # billable units; a capacity's, percentage's or flat's too (flat: 1)
    "total": QUANTITY,  # billable units of the whole run: a volume charge finds its tier by it
    "opens": pl.Boolean,  # whether it is the first part of its run: owes the first tier's flat at zero usage
    "trial": pl.Boolean,
    "fees": pl.Int64,  # of a percentage: events that are not free; else null
    "bounded": AMOUNT,  # of a percentage with event_minimum or event_maximum: what the bounds change in all; else null
}
"""Columns of a parts frame, sorted by row, from_at, cell and bucket_at. A row number of this frame names the part."""

ROWS: Columns = {
    "place": pl.UInt32,
    "slot": pl.UInt32,
    "period_start": INSTANT,
    "period_end": INSTANT,
    "group": pl.String,  # JSON of the dimensions that the charge is grouped by, keys in their order; "" without
    "quantity": QUANTITY,  # billable units of all parts, before the model's own free units
}
"""Columns of a frame of charge rows: row number n is what PARTS calls row n."""

SLICES: Columns = {
    "part": pl.UInt32,  # the row of the parts frame
    "label": pl.String,  # "", a matrix cell as "region=eu,size=l", "default", "fee", "event bounds", "trial"
    "up_to": QUANTITY,  # the tier's inclusive upper bound; null for a tier without end and for models without tiers
    "quantity": QUANTITY,
    "unit_price": PRICE,
    "flat": PRICE,
    "amount": AMOUNT,  # quantity * unit_price + flat, at most the cap; of a trial 0; of "event bounds" what they change
}
"""Columns of a slices frame, sorted by part and then lowest tier first."""
