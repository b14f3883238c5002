"""The events that every system reads: CloudEvents of about 220 bytes, the same for the same seed.

Customers are skewed (Zipf, 1.3), one event in a hundred is a copy of an earlier one, byte for byte, as a sender's retry
makes it, and one in a hundred is late by up to twenty days. All others ascend through one day.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHUNK = 50_000
REGIONS = ("eu-west", "us-east", "us-west", "ap-south")
SOURCES = 16
DAY = np.datetime64("2026-10-28", "ms")
DAY_MS = 86_400_000
LATE_SHARE = COPIES_SHARE = 0.01
LATE_DAYS_MAX = 20
COPY_DISTANCE_MAX = 50_000  # events between an event and its copy

_EVENT = (
    b'{"specversion":"1.0","type":"request","source":"/gateway/%02d","id":"%s","time":"%sZ",'
    b'"subject":"customer-%05d","data":{"bytes":%d,"region":"%s","duration_ms":"%d.%03d"}}'
)


@dataclass(frozen=True)
class Payload:
    """The parameters of a payload."""

    events: int
    seed: int = 1
    customers: int = 20_000

    def chunks(self) -> Iterator[list[bytes]]:
        """The events in order, at most CHUNK at a time, each as one line of JSON."""
        rng = np.random.default_rng(self.seed)
        count = self.events
        origin = _origins(rng, count)
        ids = rng.bytes(8 * count).hex().encode()
        customers = np.minimum(rng.zipf(1.3, count), self.customers)[origin]
        amounts = rng.integers(1, 1_000_000, count)[origin]
        regions = rng.integers(0, len(REGIONS), count)[origin]
        times = _times(rng, count)[origin]
        names = [region.encode() for region in REGIONS]
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            columns = (origin[part], customers[part], amounts[part], regions[part])
            moments = np.datetime_as_string(times[part], unit="ms").astype("S").tolist()
            yield [
                _EVENT
                % (i % SOURCES, ids[16 * i : 16 * i + 16], moment, customer, amount, names[region], i % 300, i % 1000)
                for i, customer, amount, region, moment in zip(*(c.tolist() for c in columns), moments, strict=True)
            ]


def _origins(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """For each event the one that it is a copy of, or itself."""
    origin = np.arange(count)
    copies = rng.random(count) < COPIES_SHARE
    distance = rng.integers(1, COPY_DISTANCE_MAX, count)
    origin[copies] = np.maximum(origin - distance, 0)[copies]
    while not np.array_equal(origin, origin[origin]):  # a copy of a copy is a copy of the first
        origin = origin[origin]
    return origin


def _times(rng: np.random.Generator, count: int) -> npt.NDArray[np.datetime64]:
    ascending = np.arange(count) * DAY_MS // count
    late = rng.random(count) < LATE_SHARE
    behind = rng.integers(0, LATE_DAYS_MAX * DAY_MS, count)
    since: npt.NDArray[np.datetime64] = DAY + np.where(late, ascending - behind, ascending).astype("timedelta64[ms]")
    return since
