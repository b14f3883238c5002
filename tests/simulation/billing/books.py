"""The auditor's journal: entries in their order, balances on both clocks, and which days are closed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

Leg = tuple[int, str, str, int]
"""Account, currency, dimension and minor units; a debit is above zero."""
Key = tuple[str, str, int]
"""Template, document and version of an entry."""


class RefusedError(Exception):
    """What is asked for is refused, and nothing is changed. Says of what kind the refusal is."""


@dataclass
class Entry:
    """A journal entry."""

    template: str
    kind: str
    document: str
    version: int
    customer: str
    day: date
    booked_at: datetime
    legs: list[Leg]


@dataclass
class Books:
    """All that is posted, and what is closed."""

    entries: list[Entry] = field(default_factory=list)
    known: dict[Key, Entry] = field(default_factory=dict)
    reversed: set[Key] = field(default_factory=set)
    closings: list[date] = field(default_factory=list)
    opened: dict[date, datetime] = field(default_factory=dict)
    """Until when the period that was closed through a day takes entries."""
    openings: set[tuple[date, datetime]] = field(default_factory=set)

    @property
    def closed_through(self) -> date | None:
        """The last closed day."""
        return max(self.closings, default=None)

    def open_day(self, day: date) -> date:
        """The day, or the first one behind all that is closed."""
        closed = self.closed_through
        return day if closed is None else max(day, closed + timedelta(days=1))

    def takes(self, day: date, now: datetime) -> bool:
        """Whether an entry may be dated on a day."""
        period = min((each for each in self.closings if each >= day), default=None)
        return period is None or (period in self.opened and now < self.opened[period])

    def post(
        self, template: str, kind: str, document: str, version: int, customer: str, day: date, at: datetime,
        legs: Iterable[Leg],
    ) -> bool:  # fmt: skip
        """Post an entry, on a day that is open. What has no amounts has no entry."""
        own = [leg for leg in legs if leg[3]]
        if not own:
            return False
        for currency in {leg[1] for leg in own}:
            assert sum(leg[3] for leg in own if leg[1] == currency) == 0, f"{template} {document} does not balance"
        if not self.takes(day, at):
            raise RefusedError("closed")
        key = (template, document, version)
        assert key not in self.known, f"{key} is posted twice"
        entry = Entry(template, kind, document, version, customer, day, at, own)
        self.entries.append(entry)
        self.known[key] = entry
        return True

    def reverse(self, key: Key, day: date, at: datetime) -> None:
        """Post the mirror of an entry."""
        entry = self.known[key]
        assert key not in self.reversed, f"{key} is reversed twice"
        if not self.takes(day, at):
            raise RefusedError("closed")
        self.reversed.add(key)
        mirror = [(account, currency, dimension, -minor) for account, currency, dimension, minor in entry.legs]
        self.entries.append(
            Entry(entry.template, "reversal", "of " + entry.document, 1, entry.customer, day, at, mirror)
        )

    def balances(
        self, effective: date | None = None, booked: datetime | None = None
    ) -> dict[tuple[int, str, str, str], int]:
        """By account, customer, dimension and currency; none is zero."""
        found: Counter[tuple[int, str, str, str]] = Counter()
        for each in self.entries:
            if (effective is None or each.day <= effective) and (booked is None or each.booked_at <= booked):
                for account, currency, dimension, minor in each.legs:
                    found[account, each.customer, dimension, currency] += minor
        return {key: minor for key, minor in found.items() if minor}

    def balance(self, account: int, customer: str, currency: str) -> int:
        """Of one account of a customer."""
        return sum(
            minor
            for each in self.entries
            if each.customer == customer
            for own, of, _, minor in each.legs
            if own == account and of == currency
        )
