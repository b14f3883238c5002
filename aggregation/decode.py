"""Lines of the log to a frame of events, a whole batch at once.

The fast decoder reads every line with polars and knows when it may be wrong: a number with more digits than a float
holds, a field that is missing or might not have been a string, an unusual time. Each such line goes to
`schemas/event.py`, which alone decides what a line means and alone rejects. Owns the law that a line without doubt is
decoded to exactly what `schemas/event.py` would say (tests hold the two against each other).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from aggregation.batch import lines_in
from schemas.event import IDENTITY_FIELDS, NotAnEventError, decode_line
from schemas.log import DEFAULT_TENANT, Limits, Records
from schemas.ndjson import read_lines, split_lines, text_of

_INSTANT = r"^\d{4}-\d{2}-\d{2}T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$"
_LONG_NUMBER = r"[0-9][0-9.]{15,}([eE][-+]?[0-9]+)?\s*[,}\]]|[0-9][eE][-+]?[0-9]{3,}\s*[,}\]]"
_NOT_SURELY_TEXT = r"^(-?[0-9]+(\.[0-9]+)?|true|false|[\[{].*)$"
_ESCAPED_ODDITY = r"\\u(0000|[dD][89a-fA-F])"

_BLANK_BYTES_MAX = 64  # a longer run of white space is a rejection, not a blank line
_REJECTED = {"reason": pl.String, "detail": pl.String}
_NO_LINES = pl.Series([], dtype=pl.Binary)


@dataclass(frozen=True)
class Decoded:
    """The lines of a batch that are events, one text column a path, and those that are not, with the reason."""

    events: pl.DataFrame
    rejections: pl.DataFrame


def lines_of(records: Records) -> pl.DataFrame:
    """The lines of a batch that are not blank: raw (Binary), offset, line (from 0 in its record), appended_at."""
    values = [value for value in records.values if value is not None]
    counts = lines_in(records.values)
    lines = pl.DataFrame(
        {
            "raw": split_lines(b"\n".join(values)) if values else _NO_LINES,
            "offset": np.repeat(records.offsets, counts).astype(np.uint64),
            "line": (np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)).astype(np.uint32),
            "appended_at": pl.Series(np.repeat(records.appended_at_ms, counts)).cast(pl.Datetime("ms", "UTC")),
        }
    )
    short = lines["raw"].bin.size() <= _BLANK_BYTES_MAX
    return lines.filter(~_blank(pl.col("raw"))) if short.any() else lines


def decode(lines: pl.DataFrame, paths: Sequence[str], limits: Limits) -> Decoded:
    """Every line as an event or a rejection, each in the order of the log. `lines` is as from `lines_of`.

    Events have tenant, id, source, type, subject, time (microseconds, UTC), event (the line as text) and, a path of
    `paths`, the text found there or null; rejections have reason, detail and raw. Both keep their position.
    """
    fast, doubtful = _decode_fast(lines, paths, limits)
    if not doubtful.any():  # as a rule: joining and sorting rows is for batches with doubtful ones
        return Decoded(_events(lines.hstack(fast)), pl.DataFrame(schema={**_REJECTED, **lines.schema}))
    lines = lines.with_row_index("row")
    sure, exact, rejected = lines.filter(~doubtful), [], []
    for row, raw in lines.filter(doubtful).select("row", "raw").iter_rows():
        try:
            exact.append({"row": row, **decode_line(raw, paths, limits)})
        except NotAnEventError as error:
            rejected.append({"row": row, "reason": error.reason.value, "detail": error.detail})
    columns = {name: fast.schema[name] for name in fast.columns}
    slow = pl.DataFrame(exact, schema={"row": pl.UInt32, **columns})
    decoded = pl.concat([sure.select("row").hstack(fast.filter(~doubtful)), slow])
    events = _events(decoded.join(lines, on="row", maintain_order="left").sort("row").drop("row"))
    reasons = pl.DataFrame(rejected, schema={"row": pl.UInt32, **_REJECTED})
    return Decoded(events, reasons.join(lines, on="row", maintain_order="left").drop("row"))


def _events(decoded: pl.DataFrame) -> pl.DataFrame:
    return decoded.with_columns(
        pl.col("time").fill_null(pl.col("appended_at").dt.cast_time_unit("us")), event=pl.col("raw").cast(pl.String)
    ).drop("raw")


def _blank(raw: pl.Expr) -> pl.Expr:
    return (raw.bin.size() <= _BLANK_BYTES_MAX) & raw.bin.encode("hex").str.contains(r"^(20|09|0d)*$")


def _decode_fast(lines: pl.DataFrame, paths: Sequence[str], limits: Limits) -> tuple[pl.DataFrame, pl.Series]:
    """The fields of every line, as far as they can be read at once, and for which lines that may be wrong."""
    small = pl.when(pl.col("raw").bin.size() <= limits.event_bytes_max).then(pl.col("raw"))
    readable = text_of(lines.select(small).to_series())
    schema = dict.fromkeys(("tenant", "specversion", *IDENTITY_FIELDS, "time"), pl.String)
    parsed = read_lines(readable.fill_null("{}"), {**schema, "data": _data_schema(paths)})
    text = parsed.with_columns(line=readable)
    fields = text.select(
        pl.col("tenant").fill_null(DEFAULT_TENANT),
        *IDENTITY_FIELDS,
        pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False),
        *(_at(path).alias(path) for path in paths),
    )
    in_range = (pl.col("instant") >= limits.event_at_min) & (pl.col("instant") < limits.event_at_max)
    doubts = [
        pl.any_horizontal(pl.col("line", "specversion", *IDENTITY_FIELDS).is_null()),
        pl.col("specversion") != "1.0",
        *(
            ~pl.col(field).str.len_bytes().is_between(1, limits.field_bytes_max)
            for field in ("tenant", *IDENTITY_FIELDS)
        ),
        pl.col("time").is_not_null() & ~(pl.col("time").str.contains(_INSTANT) & in_range.fill_null(value=False)),
        pl.col("data").is_null() & pl.col("line").str.contains(r'"data"|\\'),
        pl.col("line").str.contains(_LONG_NUMBER),
        pl.col("line").str.contains(_ESCAPED_ODDITY),
        *(_at(path).str.contains(r"^[\[{]") for path in paths),
    ]
    each = text.with_columns(instant=fields["time"]).select(
        doubt.fill_null(value=False).alias(str(number)) for number, doubt in enumerate(doubts)
    )
    return fields, each.select(pl.any_horizontal(pl.all())).to_series() | _not_surely_text(text)


def _data_schema(paths: Sequence[str]) -> pl.Struct:
    tree: dict[str, Any] = {}
    for path in paths:
        reduce(lambda node, name: node.setdefault(name, {}), path.removeprefix("$.").split("."), tree)

    def struct(node: dict[str, Any]) -> pl.Struct:
        return pl.Struct({name: struct(inner) if inner else pl.String for name, inner in node.items()})

    return struct(tree or {"-": {}})


def _at(path: str) -> pl.Expr:
    return reduce(lambda field, name: field.struct.field(name), path.removeprefix("$.").split("."), pl.col("data"))


def _not_surely_text(text: pl.DataFrame) -> pl.Series:
    """Where a field's text might have been a JSON number, boolean, object or array.

    It was a string for sure if the line names the field once, followed by the very text in quotes, and escapes nothing.
    """
    suspicious = [pl.col(field).str.contains(_NOT_SURELY_TEXT) for field in ("tenant", *IDENTITY_FIELDS)]
    rows = text.select(pl.any_horizontal(*(doubt.fill_null(value=False) for doubt in suspicious))).to_series()
    if not rows.any():
        return rows
    line = pl.col("line")
    cleared = [
        pl.col(field).is_null()
        | ~pl.col(field).str.contains(_NOT_SURELY_TEXT)
        | (
            (line.str.count_matches(f'"{field}"', literal=True) == 1)
            & pl.any_horizontal(
                line.str.contains(pl.concat_str(pl.lit(f'"{field}":{space}"'), field, pl.lit('"')), literal=True)
                for space in ("", " ")
            )
        )
        for field in ("tenant", *IDENTITY_FIELDS)
    ]
    sure = text.filter(rows).select(pl.all_horizontal(~line.str.contains("\\", literal=True), *cleared)).to_series()
    doubtful = rows.to_numpy().copy()
    doubtful[doubtful] = ~sure.fill_null(value=False).to_numpy()
    return pl.Series(doubtful)
