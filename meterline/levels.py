"""Levels of recurring charges from month to month: which months a bill run looks at, and what each starts with.

Decides the order, oldest first, because what a month ends with is what the next one starts with. Owns that every month
starts with what the month before it ends with as of the same run, whether or not somebody billed that one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import sqlalchemy as sa

from meterline.period import Period
from rating.levels import LEVELS, digest_of
from rating.rater import Rater
from rating.store import LevelRating, keep_levels, level_ratings, levels_of
from schemas.charges import Charge, MeteredCharge
from schemas.contract import Contract
from schemas.invoice import Run
from schemas.tenant import DEFAULT_TENANT

_DAY = timedelta(days=1)
NO_LEVELS = pl.DataFrame(schema=LEVELS)


@dataclass(frozen=True)
class Stretch:
    """A month that is billed; or months that nobody billed: they cost nothing, but their usage moves levels."""

    span: Period
    billed: bool

    @property
    def name(self) -> str:
        """The last of its months."""
        return f"{self.span.end - _DAY:%Y-%m}"

    @property
    def name_before(self) -> str:
        """The month before it."""
        return f"{self.span.start - _DAY:%Y-%m}"


class Levels:
    """What a run finds of the levels of recurring charges, and what runs before it found."""

    def __init__(self, database: sa.Engine, run: Run) -> None:
        self._database, self._run = database, run
        self._known: dict[str, list[LevelRating]] = {}
        self._found: dict[str, tuple[LevelRating, pl.DataFrame]] = {}
        with database.connect() as connection:
            for each in level_ratings(connection, DEFAULT_TENANT):
                self._known.setdefault(each.period, []).append(each)

    def any_before(self) -> bool:
        """Whether a charge has had a level."""
        return any(each.digest for ratings in self._known.values() for each in ratings)

    def last(self, stretch: Stretch) -> LevelRating | None:
        """How it was rated by the runs before this one, last."""
        return next(reversed(self._known.get(stretch.name, [])), None)

    def moved(self, stretch: Stretch) -> bool:
        """Whether it starts with other levels than when it was rated last (if it ever was, else than none)."""
        last = self.last(stretch)
        before = [each for each in self._known.get(stretch.name_before, []) if last and each.cut <= last.cut]
        then, now = next(reversed(before), None), self._in_force(stretch.name_before)
        return (then.digest if then else "") != (now.digest if now else "")

    def before(self, stretch: Stretch) -> pl.DataFrame:
        """The levels that it starts with: columns rating.levels.LEVELS."""
        if stretch.name_before in self._found:
            return self._found[stretch.name_before][1]
        rating = self._in_force(stretch.name_before)
        if rating is None:
            return NO_LEVELS
        with self._database.connect() as connection:
            return levels_of(connection, DEFAULT_TENANT, rating)

    def note(self, stretch: Stretch, carried: Iterable[pl.DataFrame]) -> None:
        """The levels that this run found it to end with, of all chunks of it."""
        ended = pl.concat([NO_LEVELS, *carried]).sort("customer", "charge", "group", "cell")
        basis = self._run.basis
        rating = LevelRating(stretch.name, self._run.period, basis.cut, basis.contracts_digest, digest_of(ended))
        self._found[stretch.name] = (rating, ended)

    def post(self, connection: sa.Connection) -> None:
        """Keep what this run found. Belongs into the transaction that posts."""
        keep_levels(connection, DEFAULT_TENANT, self._found.values())

    def _in_force(self, name: str) -> LevelRating | None:
        found = self._found.get(name)
        return found[0] if found else next(reversed(self._known.get(name, [])), None)


def recur(charges: Iterable[Charge]) -> bool:
    """Whether one of the charges keeps a level."""
    return any(isinstance(each, MeteredCharge) and each.recurring for each in charges)


def levels_before(database: sa.Engine, month: Period) -> pl.DataFrame:
    """The levels in force at the end of the month before (columns rating.levels.LEVELS)."""
    name = Stretch(month, billed=True).name_before
    with database.connect() as connection:
        known = [each for each in level_ratings(connection, DEFAULT_TENANT) if each.period == name]
        return levels_of(connection, DEFAULT_TENANT, known[-1]) if known else NO_LEVELS


def billed_stretches(months: Iterable[str], month: Period) -> list[Stretch]:
    """The billed months before a run's own month, and it; oldest first."""
    earlier = sorted({each for each in months if each < str(month)})
    return [*(Stretch(Period.parse(each), billed=True) for each in earlier), Stretch(month, billed=True)]


def with_months_between(stretches: Sequence[Stretch], first_at: datetime | None) -> list[Stretch]:
    """The stretches with those that nobody billed, from an instant on; so that the levels that they moved go on."""
    found: list[Stretch] = []
    first = Period.parse(f"{first_at:%Y-%m}").start if first_at else stretches[0].span.start
    if first < stretches[0].span.start:
        found.append(Stretch(Period(first, stretches[0].span.start), billed=False))
    for each in stretches:
        if found and found[-1].span.end < each.span.start:
            found.append(Stretch(Period(found[-1].span.end, each.span.start), billed=False))
        found.append(each)
    return found


def of_priced(rater: Rater) -> Rater:
    """It for those contracts alone that have terms in all of its time: the others' levels stay as they were."""

    def is_priced(contract: Contract) -> bool:
        try:
            rater.bills(contract)
        except (LookupError, ValueError):
            return False
        return True

    return Rater(rater.basis, [each for each in rater.contracts if is_priced(each)])
