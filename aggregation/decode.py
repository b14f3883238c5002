"""Lines of the log to a frame of events, a whole batch at once.

The scanner finds the fields of every line, and knows where it is not sure. Each such line goes to `schemas/event.py`,
which alone decides what a line means and alone rejects. Owns the law that a line without doubt is decoded to exactly
what `schemas/event.py` would say (tests hold the two against each other).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa

from aggregation.instants import instants
from aggregation.scan import Lengths, Mask, Names, Places, Scanned, scan, views
from schemas.event import IDENTITY_FIELDS, NotAnEventError, decode_line
from schemas.log import Bytes, Limits, Records
from schemas.ndjson import text_of
from schemas.tenant import DEFAULT_TENANT

_FIELDS = ("specversion", "tenant", *IDENTITY_FIELDS, "time")
_SPECVERSION, _TENANT, _TIME = (_FIELDS.index(name) for name in ("specversion", "tenant", "time"))
_BLANK_BYTES_MAX = 64  # a longer run of white space is a rejection, not a blank line
_LINE_FEED = ord("\n")
_REJECTED = {"reason": pl.String, "detail": pl.String}


@dataclass(frozen=True)
class Lines:
    """Lines in a buffer, none of them blank, each with a line feed behind it.

    `columns` has a row for each: offset, line (from 0 in its record), appended_at, or whatever else belongs to it.
    """

    buffer: Bytes
    starts: Places
    ends: Places
    columns: pl.DataFrame

    @classmethod
    def of(cls, buffer: Bytes, ends: Places, columns: pl.DataFrame) -> Self:
        """Lines in a buffer up to their line feeds, with a row of `columns` for each, blank or not."""
        starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
        short = np.flatnonzero(ends - starts <= _BLANK_BYTES_MAX)
        blank = [row for row in short.tolist() if not buffer[starts[row] : ends[row]].tobytes().strip(b" \t\r")]
        if blank:
            kept = np.ones(len(ends), np.bool_)
            kept[blank] = False
            return cls(buffer, starts[kept], ends[kept], columns.filter(kept))
        return cls(buffer, starts, ends, columns)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Lengths:
        """The length of each line."""
        return (self.ends - self.starts).astype(np.int32)

    @property
    def raw(self) -> pl.Series:
        """The lines as a Binary series."""
        return views(self.buffer, self.starts, self.lengths, pa.binary_view()).alias("raw")


@dataclass(frozen=True)
class Decoded:
    """The lines of a batch that are events, one text column a path, and those that are not, with the reason."""

    events: pl.DataFrame
    rejections: pl.DataFrame


def lines_of(records: Records) -> Lines:
    """The lines of a batch, whose records are joined."""
    valued = ~records.punctuation
    values, offsets, appended_at_ms = records.values[valued], records.offsets[valued], records.appended_at_ms[valued]
    buffer = records.buffer[: values[-1, 1] + 1 if len(values) else 0]
    assert len(buffer) == records.sizes.sum() + len(values), "there are values alone, a line feed behind each"
    ends = np.flatnonzero(buffer == _LINE_FEED)
    assert (buffer[values[:, 1]] == _LINE_FEED).all(), "and it is one"
    counts = np.diff(np.searchsorted(ends, values[:, 1], side="right"), prepend=0)
    columns = pl.DataFrame(
        {
            "offset": np.repeat(offsets, counts).astype(np.uint64),
            "line": (np.arange(len(ends)) - np.repeat(counts.cumsum() - counts, counts)).astype(np.uint32),
            "appended_at": pl.Series(np.repeat(appended_at_ms, counts)).cast(pl.Datetime("ms", "UTC")),
        }
    )
    return Lines.of(buffer, ends, columns)


def decode(lines: Lines, paths: Sequence[str], limits: Limits) -> Decoded:
    """Every line as an event or a rejection, each in the order of the log.

    Events have tenant, id, source, type, subject, time (microseconds, UTC), event (the line as text) and, a path of
    `paths`, the text found there or null; rejections have reason, detail and raw. Both keep the columns of `lines`.
    """
    raw = lines.raw
    text = text_of(raw)
    fields, doubtful = _fields(lines, paths, limits)
    doubtful |= text.is_null()
    sure = fields.hstack(lines.columns).with_columns(event=text)
    if not doubtful.any():  # as a rule: joining and sorting rows is for batches with doubtful ones
        return Decoded(_timed(sure), pl.DataFrame(schema={**_REJECTED, "raw": pl.Binary, **lines.columns.schema}))
    exact, rejected = [], []
    for row, line in pl.select(row=pl.arg_where(doubtful)).with_columns(raw=raw.filter(doubtful)).iter_rows():
        try:
            exact.append({"row": row, **decode_line(line, paths, limits)})
        except NotAnEventError as error:
            rejected.append({"row": row, "reason": error.reason.value, "detail": error.detail})
    columns = lines.columns.with_columns(raw=raw, event=text).with_row_index("row")
    slow = pl.DataFrame(exact, schema={"row": pl.UInt32, **fields.schema}).join(columns.drop("raw"), on="row")
    events = pl.concat([sure.with_row_index("row").filter(~doubtful), slow.select("row", *sure.columns)])
    reasons = pl.DataFrame(rejected, schema={"row": pl.UInt32, **_REJECTED})
    return Decoded(
        _timed(events.sort("row").drop("row")),
        reasons.join(columns.drop("event"), on="row", maintain_order="left").drop("row"),
    )


def _timed(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(pl.col("time").fill_null(pl.col("appended_at").dt.cast_time_unit("us")))


def _fields(lines: Lines, paths: Sequence[str], limits: Limits) -> tuple[pl.DataFrame, pl.Series]:
    """The fields of every line, as far as they can be read at once, and for which lines that may be wrong."""
    found = scan(lines.buffer, lines.starts, lines.ends, Names.of(_FIELDS, paths))
    time, in_time = _instants(found, limits)
    fields = pl.DataFrame(
        {
            "tenant": found.text(_TENANT).fill_null(DEFAULT_TENANT),
            **{name: found.text(_FIELDS.index(name)) for name in IDENTITY_FIELDS},
            "time": time,
            **{path: found.text(len(_FIELDS) + number) for number, path in enumerate(paths)},
        }
    )
    sizes = found.lengths[_TENANT:_TIME]  # of the tenant and of the fields that must be there
    fit = (sizes > 0) & (sizes <= limits.field_bytes_max)
    fit[0] |= sizes[0] < 0
    sure = ~found.doubtful & in_time & fit.all(axis=0) & (lines.lengths <= limits.event_bytes_max)
    right = (found.text(_SPECVERSION) == "1.0").fill_null(value=False)
    return fields, ~(pl.Series(sure) & right)


def _instants(found: Scanned, limits: Limits) -> tuple[pl.Series, Mask]:
    """The times, null where there is none; and where that is for sure."""
    micros, understood = instants(found.buffer, found.starts[_TIME], found.lengths[_TIME])
    missing = found.lengths[_TIME] < 0
    time = pl.Series(micros).cast(pl.Datetime("us", "UTC"))
    in_range = ((time >= limits.event_at_min) & (time < limits.event_at_max)).to_numpy()
    return time.set(pl.Series(missing), None), understood & (in_range | missing)
