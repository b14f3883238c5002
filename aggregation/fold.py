"""Events to rollup deltas, and the validation errors of events that a meter cannot use.

Owns that no value becomes a silent zero: an event counts for a meter with its exact value, or not at all and with an
error that says why. Time is in half-open hours:

        10:00            11:00            12:00
          [--- window ----)[--- window ----)
                           ^ an event at 11:00:00 opens the next window
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from schemas.meter import Aggregation, Meter
from schemas.meter_terms import duration_text
from schemas.money import QUANTITY
from schemas.tables import DIMENSIONS, LATEST, LATEST_ORDER, ROLLUPS

_NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,9}0*)?$"
_NEUTRAL = {
    "sum": pl.lit(0).cast(QUANTITY),
    "min": pl.lit(None).cast(QUANTITY),
    "max": pl.lit(None).cast(QUANTITY),
    "uniques": pl.lit([], pl.List(pl.String)),
    "latest": pl.lit([], LATEST),
}
_ANY_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"


def rollup_deltas(events: pl.DataFrame, meters: Sequence[Meter], epoch: int) -> pl.DataFrame:
    """What a batch's accepted events add to the rollups: one row a meter, subject, dimensions and hour.

    `events` is as from `decode`, and a LATEST meter also needs its partition. A meter's value has at most 15 digits
    before the point and 9 after it, so that no batch can overflow Decimal(38, 9). Raises polars' InvalidOperationError
    on overflow all the same.
    """
    if not meters:
        return pl.DataFrame(schema=ROLLUPS.frame)
    hourly = events.with_columns(window_start=pl.col("time").dt.truncate("1h").dt.cast_time_unit("ms")).lazy()
    grouped = pl.collect_all([_grouped(hourly, meter) for meter in meters])
    deltas = [_as_rollups(groups, meter) for groups, meter in zip(grouped, meters, strict=True)]
    return pl.concat(deltas).with_columns(epoch=pl.lit(epoch, pl.UInt32)).select(ROLLUPS.frame.keys())


def window_usage(events: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """What events with a `window_start` of any kind add to a meter: a row a tenant, subject, dimensions and window.

    Columns of the keys (a dimension's is named `dimension NAME`), count, and the measure of the meter's aggregation.
    """
    groups = _grouped(events.lazy(), meter).collect()
    return groups.with_columns(latest=_latest(groups)) if meter.aggregation is Aggregation.LATEST else groups


def counts_for(meter: Meter) -> pl.Expr:
    """Whether an event counts for a meter."""
    return _wanted(meter) & _error(meter).is_null() if _may_err(meter) else _wanted(meter)


def validation_errors(events: pl.DataFrame, meters: Sequence[Meter]) -> pl.Series:
    """For each event, why a meter that wants its type cannot use it, or that none wants it: a list of texts."""
    wanted = sorted({meter.event_type for meter in meters})
    unwanted = pl.when(~pl.col("type").is_in(wanted)).then(pl.format('no meter wants the event type "{}"', "type"))
    errors = [unwanted] + [pl.when(_wanted(meter)).then(_error(meter)) for meter in meters if _may_err(meter)]
    faulty = events.select(pl.any_horizontal(error.is_not_null() for error in errors)).to_series()
    rows = pl.select(row=pl.int_range(len(events), dtype=pl.UInt32)).to_series()
    listed = [  # most events have no error, and a list a row is dear
        pl.DataFrame({"row": rows.filter(faulty)}).hstack(
            events.filter(faulty).select(errors=pl.concat_list(*errors).list.drop_nulls())
        ),
        pl.DataFrame({"row": rows.filter(~faulty)}).with_columns(errors=pl.lit([], pl.List(pl.String))),
    ]
    return pl.concat(listed).sort("row")["errors"]


def _grouped(events: pl.LazyFrame, meter: Meter) -> pl.LazyFrame:
    """The events that a meter counts, by its keys, with their count and the meter's measure."""
    wanted = events.filter(counts_for(meter))
    measures: dict[str, pl.Expr] = {}
    if meter.value_property:
        text = pl.col(meter.value_property)
        number = text.cast(QUANTITY)
        match meter.aggregation:
            case Aggregation.SUM | Aggregation.AVG:  # an average is the sum by the count, divided at the very end
                measures["sum"] = number.sum()
            case Aggregation.LATEST:
                wanted = wanted.sort(LATEST_ORDER)  # once, and not in each group
                measures |= {f"latest {name}": pl.col(name).last() for name in LATEST_ORDER}
                measures["latest value"] = number.last()
            case Aggregation.MIN:
                measures["min"] = number.min()
            case Aggregation.MAX:
                measures["max"] = number.max()
            case Aggregation.UNIQUE_COUNT:
                measures["uniques"] = text.unique()
    paths = sorted(meter.group_by.items())
    dimensions = [pl.col(path).fill_null("").alias(f"dimension {name}") for name, path in paths]
    return (
        wanted.group_by("tenant", "subject", *dimensions, "window_start")
        .agg(pl.len().cast(pl.UInt64).alias("count"), **measures)
        .sort(
            "tenant", "subject", *(f"dimension {name}" for name, _ in paths), "window_start"
        )  # in key order, so that the engine has less to sort
    )


def _as_rollups(groups: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """The groups of a meter with all columns of ROLLUPS but the epoch."""
    measures = {"latest": _latest(groups)} if meter.aggregation is Aggregation.LATEST else {}
    neutral = {name: literal for name, literal in _NEUTRAL.items() if name not in {*groups.columns, *measures}}
    return groups.with_columns(
        _dimensions(groups, sorted(meter.group_by)), meter=pl.lit(meter.slug), **measures, **neutral
    ).select(name for name in ROLLUPS.frame if name != "epoch")


def _dimensions(groups: pl.DataFrame, names: Sequence[str]) -> pl.Series:
    """The dimensions of each group as a list of (key, value). Built from flat columns: a list a row is dear."""
    if not names:
        return pl.Series("dimensions", [[]], dtype=DIMENSIONS).new_from_index(0, len(groups))
    by_group = np.arange(len(groups) * len(names)).reshape(len(names), len(groups)).T.ravel()
    values = pl.concat([groups[f"dimension {name}"] for name in names]).gather(by_group)
    keys = pl.Series(names).gather(np.tile(np.arange(len(names)), len(groups)))
    pairs = pl.DataFrame({"key": keys, "value": values}).to_struct("dimensions")
    return pairs.reshape((len(groups), len(names))).arr.to_list()


def _latest(groups: pl.DataFrame) -> pl.Series:
    """The latest value of each group, as a list of one. Built from flat columns, too."""
    flat = [groups[f"latest {name}"].alias(name) for name in (*LATEST_ORDER, "value")]
    return pl.DataFrame(flat).to_struct("latest").reshape((len(groups), 1)).arr.to_list()


def _wanted(meter: Meter) -> pl.Expr:
    """Whether an event is of the meter: its type, from when on, and the texts that the filters let pass."""
    conditions = [pl.col("type") == meter.event_type]
    if meter.event_from:
        conditions.append(pl.col("time") >= pl.lit(meter.event_from, pl.Datetime("us", "UTC")))
    for path, texts in sorted(meter.filters.items()):
        text = pl.col(path).fill_null("")
        if texts.allowed is not None:
            conditions.append(text.is_in(texts.allowed))
        if texts.refused is not None:
            conditions.append(~text.is_in(texts.refused))
    return pl.all_horizontal(conditions)


def _may_err(meter: Meter) -> bool:
    return bool(meter.value_property or meter.event_age_max is not None or meter.event_ahead_max is not None)


def _error(meter: Meter) -> pl.Expr:
    """Why the meter cannot use an event that it wants: its age first, then its value. Null where it can."""
    appended_at = pl.col("appended_at").dt.cast_time_unit("us")
    errors: list[pl.Expr] = []
    for limit, name, side, distance in (
        (meter.event_age_max, "eventAgeMax", "before", appended_at - pl.col("time")),
        (meter.event_ahead_max, "eventAheadMax", "after", pl.col("time") - appended_at),
    ):
        if limit is not None:
            error = f"{meter.slug}: the event time lies more than {duration_text(limit)} {side} its arrival ({name})"
            errors.append(pl.when(distance > pl.lit(limit, pl.Duration("us"))).then(pl.lit(error)))
    if meter.value_property:
        errors.append(_value_error(meter))
    return pl.coalesce(errors)


def _value_error(meter: Meter) -> pl.Expr:
    assert meter.value_property is not None
    text = pl.col(meter.value_property)
    name = f'{meter.slug}: the value property "{meter.value_property}"'
    missing = pl.when(text.is_null()).then(pl.lit(f"{name} is missing or null"))
    if not meter.numeric:
        return missing
    shown = text.str.head(64)
    return (
        missing.when(text.str.contains(_NUMBER))
        .then(pl.lit(None, pl.String))
        .when(text.str.contains(_ANY_NUMBER))
        .then(pl.format(name + " is {}: allowed are 15 digits before the point and 9 after it", shown))
        .otherwise(pl.format(name + ' is "{}": allowed is a decimal number', shown))
    )
