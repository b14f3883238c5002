"""What a run has rated, until it is billed: charges of any number of customers in bounded memory.

Owns that every charge is in one range of customers, and that ranges follow each other in the order of customers.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from schemas.invoice import CHARGED

CUSTOMERS_AT_ONCE = 20_000
ROWS_IN_MEMORY_MAX = 200_000


@dataclass(frozen=True)
class Customers:
    """A range of customers by the bytes of their names: above one, up to another. None: without a bound."""

    above: str | None = None
    up_to: str | None = None

    @property
    def condition(self) -> pl.Expr:
        """Whether column `customer` is in it."""
        lower = pl.lit(value=True) if self.above is None else pl.col("customer") > self.above
        return lower if self.up_to is None else lower & (pl.col("customer") <= self.up_to)


class Charged:
    """Frames of charges (columns `schemas.invoice.CHARGED`): the first in memory, and files of what is too much."""

    def __init__(self) -> None:
        self.periods: set[str] = set()
        self._frames: list[pl.DataFrame] = []
        self._rows = 0
        self._customers: list[pl.Series] = []
        self._files: list[Path] = []
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exits.close()

    def add(self, charges: pl.DataFrame) -> None:
        """Keep some charges."""
        self.periods |= set(charges["period"].unique())
        self._customers.append(charges["customer"].unique())
        self._frames.append(charges)
        self._rows += charges.height
        if self._rows > ROWS_IN_MEMORY_MAX:
            if not self._files:
                self._folder = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="meterline-charges-")))
            path = self._folder / f"{len(self._files)}.arrow"
            pl.concat(self._frames).write_ipc(path)
            self._files.append(path)
            self._frames, self._rows = [], 0

    def ranges(self, customers_at_once: int = CUSTOMERS_AT_ONCE) -> Iterator[Customers]:
        """Ranges of about so many customers, which together are all there could be."""
        names = pl.concat([pl.Series(dtype=pl.String), *self._customers]).unique().sort()
        bounds = [*names.gather_every(customers_at_once, offset=customers_at_once - 1)]
        if bounds and bounds[-1] == names[-1]:
            bounds.pop()
        for above, up_to in zip([None, *bounds], [*bounds, None], strict=True):
            yield Customers(above, up_to)

    def of(self, customers: Customers) -> pl.DataFrame:
        """The charges of a range, in the order in which they came."""
        stored = [pl.read_ipc(path).filter(customers.condition) for path in self._files]
        kept = [frame.filter(customers.condition) for frame in self._frames]
        return pl.concat([pl.DataFrame(schema=CHARGED), *stored, *kept])
