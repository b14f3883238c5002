"""Quantities: usage, segments and the traits of charges give the parts that are priced. Core.

    usage ──place──▶ plain segments ─────────────────────────────────┐
              └────▶ claimed (filters, groups, cells)                │
                        ├──▶ windows ──take──┐                       ▼
                        ├──▶ levels ─────────┼──▶ used ──running──▶ parts ──▶ rows
                        └──▶ paid events ────┘

Decides steps 1 to 3 of the chain in docs/pricing.md: quantity, conversion, units that are not priced. Owns the
invariants that the order of rows changes nothing, that no quantity is below 0, and that what needs more than 17 whole
digits is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from rating.billionths import ZERO, quantity_of, refuse_overflow
from rating.buckets import USED, taken, windowed
from rating.claiming import claimed
from rating.frames import PARTS, ROWS
from rating.levels import CARRIED, levels
from rating.percentage import has_bounds, paid_events
from rating.plain import plain_of, plain_quantities
from rating.running import CONVERSION, sold
from rating.traits import traits_of
from schemas.charges import Charge
from schemas.invoice import Columns
from schemas.money import AMOUNT, QUANTITY

_LINED: Columns = {
    "line": pl.UInt32,
    "group": pl.String,
    "segment": pl.UInt32,
    "term": pl.UInt32,
    "cell": pl.Int32,
    "bucket_at": PARTS["bucket_at"],
    "before": QUANTITY,
    "quantity": QUANTITY,
    "total": QUANTITY,
    "opens": pl.Boolean,
    "trial": pl.Boolean,
    "fees": pl.Int64,
    "bounded": AMOUNT,
    "billable": QUANTITY,  # also what is free by the model
}
"""Columns of parts before rows are numbered."""
_ORDER = ("line", "group", "segment", "cell", "bucket_at")


@dataclass(frozen=True)
class Quantities:
    """What of usage is priced."""

    rows: pl.DataFrame
    """Columns rating.frames.ROWS: the charge rows, without those of flat charges."""
    parts: pl.DataFrame
    """Columns rating.frames.PARTS."""
    unassigned: pl.DataFrame
    """Columns rating.claiming.UNASSIGNED: what a matrix has no cell for."""
    carried: pl.DataFrame
    """Columns rating.levels.CARRIED: what recurring charges end with, 0 left out."""


def quantities(
    usage: pl.DataFrame,
    subjects: pl.DataFrame,
    segments: pl.DataFrame,
    terms: Sequence[Charge],
    aggregations: Mapping[str, str],
    *,
    carried: pl.DataFrame | None = None,
    units: Sequence[Decimal] = (),
) -> Quantities:
    """The charge rows and their parts, for all customers at once.

    `usage` has the columns rating.frames.USAGE that the charges ask for; those that no charge asks for may be missing.
    With the column `position` (UInt64) it says the order in the log of events of one instant; else it is that of the
    rows. `subjects` has the columns subject and place. Usage of a subject without place, of a meter without charge, or
    at an instant without segment is nobody's here. `segments` has the columns rating.frames.SEGMENTS, sorted as they
    say, `terms` are the charges by the place that it names, each of one currency; `aggregations` has their meters.
    `carried` (CARRIED) are the levels that recurring charges start with. `units` are those of usage discounts that
    plans and contracts give on a term, for each term; the term's own are known.

    In this order: (1) Usage finds its segments. (2) It is combined over the subjects of a customer, for each segment,
    group, cell and window, and windows are put together; nothing is below 0. (3) Conversions and units that are not
    priced run on through the segments of a run. (4) Rows are numbered.

    Raises ValueError for a meter without aggregation, for usage without a dimension that a charge asks for, and for
    keys of a charge that give no quantity together; OverflowError for more than 17 whole digits.
    """
    traits, sieves = traits_of(terms, aggregations, units)
    # 1. segments
    metered = _metered(segments, traits)
    placed = _placed(usage, subjects, traits)
    plain = plain_of(metered, traits)
    special = _special(metered, plain.segments, traits, terms)
    rows = placed if special.height else placed.clear()
    claims, unassigned = claimed(rows, special, sieves)
    # 2. what was used
    used, carried_on = _used(claims, special, terms, pl.DataFrame(schema=CARRIED) if carried is None else carried)
    # 3. running totals
    parts = _special_parts(used, special)
    if plain.segments.height:
        short = _plain_parts(plain_quantities(placed, plain, traits))
        parts = pl.concat([short, parts]).sort(*_ORDER) if parts.height else short
    # 4. rows
    charge_rows, numbered = _numbered(parts, segments)
    return Quantities(charge_rows, numbered, unassigned, carried_on)


def _metered(segments: pl.DataFrame, traits: pl.DataFrame) -> pl.DataFrame:
    """The segments of metered charges with `segment`, the row number, and `line`, which counts place, period, slot."""
    metered = segments.with_row_index("segment")
    of_meter = traits["meter"].is_not_null()
    if not of_meter.all():
        metered = metered.filter(pl.lit(of_meter).gather(pl.col("term")))
    key = ("place", "period_start", "slot")
    new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in key)
    return metered.with_columns(line=new.cum_sum().cast(pl.UInt32))


def _placed(usage: pl.DataFrame, subjects: pl.DataFrame, traits: pl.DataFrame) -> pl.DataFrame:
    """The usage of subjects that have a place, with it, in no order.

    Where events are charged one by one, with `position`: their order in the log, or else in the frame.
    """
    rows = usage.lazy()
    if traits["events"].any() and "position" not in usage.columns:
        rows = rows.with_row_index("position")
    return rows.join(subjects.lazy().select("subject", "place"), on="subject", how="inner").collect()


def _special(metered: pl.DataFrame, plain: pl.DataFrame, traits: pl.DataFrame, terms: Sequence[Charge]) -> pl.DataFrame:
    """The segments that go the long way, with the traits of their charges, and its id."""
    special = (
        metered.join(plain.select("segment"), on="segment", how="anti")
        if plain.height < metered.height
        else metered.clear()
    )
    ids = pl.Series("charge", [charge.id for charge in terms], dtype=pl.String)
    bounds = pl.Series("has_bounds", [has_bounds(charge) for charge in terms], dtype=pl.Boolean)
    return special.join(traits.with_columns(ids, bounds), on="term", how="left", maintain_order="left")


def _used(
    claims: pl.DataFrame, special: pl.DataFrame, terms: Sequence[Charge], carried: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What special segments used (columns rating.percentage.EVENTS), if only nothing; and the levels to carry on."""
    lasts = pl.col("recurring") | (pl.col("take") == "time_weighted")
    features = special.select("segment", "window", lasts=lasts, events="events")
    rows = windowed(claims.join(features, on="segment", how="left", maintain_order="left"))
    neither = rows.filter(~pl.col("lasts") & ~pl.col("events"))
    of_windows = taken(neither, special)
    of_levels, carried_on = levels(rows.filter("lasts"), special.filter(lasts), carried)
    of_events = paid_events(rows.filter("events"), special, terms)
    used = pl.concat([of_windows, of_levels, of_events], how="diagonal")
    return pl.concat([used, _unused(used, special)], how="diagonal"), carried_on


def _unused(used: pl.DataFrame, special: pl.DataFrame) -> pl.DataFrame:
    """Nothing (columns USED), for each segment that used nothing and has a part all the same.

    Not of groups. With `take: each` only where the whole run used nothing: else its buckets are its parts; and then it
    opens nothing, because no window that was used could owe a flat amount.
    """
    lacking = special.filter(~pl.col("scattered")).join(used, on="segment", how="anti")
    runs = special.join(used, on="segment", how="semi").select("run")
    each = pl.col("take") == "each"
    empty = lacking.filter(each).join(runs, on="run", how="anti")
    return pl.concat([lacking.filter(~each), empty]).select(
        "segment",
        group=pl.lit(""),
        cell=pl.lit(0, pl.Int32),
        bucket_at=pl.lit(None, USED["bucket_at"]),
        billionths=ZERO,
    )


def _special_parts(used: pl.DataFrame, special: pl.DataFrame) -> pl.DataFrame:
    """The parts of special segments (columns _LINED), sorted. What events are sold is converted already."""
    wanted = (
        "segment", "line", "run", "term", "trial", "matrix", "unpriced", "events", "has_bounds", "take", *CONVERSION
    )  # fmt: skip
    rows = used.join(special.select(wanted), on="segment")
    as_it_is = {"times": 1, "by": 1, "step": 1, "unpriced": 0}
    rows = rows.with_columns(
        pl.when("events").then(pl.lit(value, pl.Int128)).otherwise(name).alias(name) for name, value in as_it_is.items()
    )
    nothing = pl.lit(Decimal(0), AMOUNT)
    parts = sold(rows).with_columns(
        opens=pl.col("opens") & ((pl.col("take") != "each") | pl.col("bucket_at").is_not_null()),
        billable=pl.col("billable").fill_null(pl.col("quantity")),
        fees=pl.when("events").then(pl.col("fees").fill_null(0)),
        bounded=pl.when("has_bounds").then(pl.col("bounded").fill_null(nothing)),
    )
    amounts = [quantity_of(pl.col(name)).alias(name) for name in ("before", "quantity", "total", "billable")]
    return parts.with_columns(amounts).select(pl.col(name).cast(kind) for name, kind in _LINED.items()).sort(*_ORDER)


def _plain_parts(segments: pl.DataFrame) -> pl.DataFrame:
    """The parts of plain segments (columns _LINED), in their order."""
    constant = {"group": "", "cell": 0, "bucket_at": None, "before": 0, "opens": True, "fees": None, "bounded": None}
    own = {"total": pl.col("quantity"), "billable": pl.col("quantity")}
    filled = {name: pl.lit(value, _LINED[name]) for name, value in constant.items()}
    return segments.with_columns(**filled, **own).select(*_LINED)


def _numbered(parts: pl.DataFrame, segments: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows (columns ROWS) and the parts (columns PARTS) of sorted parts: a row for each line and group."""
    changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("line", "group"))
    opens = parts.select(changed.alias("opens"))["opens"]
    if opens.all():
        owners, quantity, number = parts, parts["billable"], pl.int_range(parts.height, dtype=pl.UInt32, eager=True)
    else:
        owners, number = parts.filter(opens), (opens.cum_sum() - 1).cast(pl.UInt32)
        until = parts["billable"].to_physical().cum_sum().filter(opens.shift(-1, fill_value=True))
        sums = pl.select(until - until.shift(1, fill_value=0)).to_series()
        refuse_overflow(sums, "the quantity of a charge")
        quantity = sums.to_frame("quantity").select(quantity_of(pl.col("quantity"))).to_series()
    names = ("place", "slot", "period_start", "period_end")
    owned = [segments[name].gather(owners["segment"]) for name in names]
    rows = pl.DataFrame([*owned, owners["group"], quantity.alias("quantity")])
    return rows.select(*ROWS), parts.with_columns(number.alias("row")).select(*PARTS)
