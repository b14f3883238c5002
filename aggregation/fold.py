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
from schemas.money import QUANTITY
from schemas.tables import DIMENSIONS, ROLLUPS

_NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,9}0*)?$"
_NEUTRAL = {
    "sum": pl.lit(0).cast(QUANTITY),
    "min": pl.lit(None).cast(QUANTITY),
    "max": pl.lit(None).cast(QUANTITY),
    "uniques": pl.lit([], pl.List(pl.String)),
}
_ANY_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"


def rollup_deltas(events: pl.DataFrame, meters: Sequence[Meter], epoch: int) -> pl.DataFrame:
    """What a batch's accepted events add to the rollups: one row a meter, subject, dimensions and hour.

    `events` is as from `decode`. A meter's value has at most 15 digits before the point and 9 after it, so that no
    batch can overflow Decimal(38, 9). Raises polars' InvalidOperationError on overflow all the same.
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
    return _grouped(events.lazy(), meter).collect()


def counts_for(meter: Meter) -> pl.Expr:
    """Whether an event counts for a meter."""
    wanted = pl.col("type") == meter.event_type
    return wanted & _value_error(meter).is_null() if meter.value_property else wanted


def validation_errors(events: pl.DataFrame, meters: Sequence[Meter]) -> pl.Series:
    """For each event, why a meter that wants its type cannot use it, or that none wants it: a list of texts."""
    wanted = sorted({meter.event_type for meter in meters})
    unwanted = pl.when(~pl.col("type").is_in(wanted)).then(pl.format('no meter wants the event type "{}"', "type"))
    errors = [unwanted] + [
        pl.when(pl.col("type") == meter.event_type).then(_value_error(meter))
        for meter in meters
        if meter.value_property
    ]
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
    wanted = events.filter(pl.col("type") == meter.event_type)
    measures: dict[str, pl.Expr] = {}
    if meter.value_property:
        text = pl.col(meter.value_property)
        wanted = wanted.filter(_value_error(meter).is_null())
        number = text.cast(QUANTITY)
        match meter.aggregation:
            case Aggregation.SUM:
                measures["sum"] = number.sum()
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
    return groups.with_columns(
        _dimensions(groups, sorted(meter.group_by)),
        meter=pl.lit(meter.slug),
        **{name: literal for name, literal in _NEUTRAL.items() if name not in groups.columns},
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
