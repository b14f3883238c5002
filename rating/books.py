"""Which version of a price book is in force, and that a version never changes. Core."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from zoneinfo import ZoneInfo

import orjson

from rating.calendar import midnight
from schemas.configuration import ConfigurationError, Fault
from schemas.overrides import Layer, overlaid
from schemas.plan import Plan
from schemas.price_book import PriceBook

local_midnight = cache(midnight)


@dataclass(frozen=True)
class Schedule:
    """The versions of a book as they follow each other for some customers.

    version 1 from January, version 2 from February, version 3 (a correction) from February

    instant  | December   January   February   March
    in force |     none         1          3       3
    """

    begins: tuple[datetime, ...]
    books: tuple[PriceBook, ...]

    def at(self, instant: datetime) -> PriceBook | None:
        """The version in force at an instant: of those that reached their date the latest, then the highest version."""
        place = bisect_right(self.begins, instant)
        return self.books[place - 1] if place else None


class Books:
    """The versions of a tenant's price books, and what is made of them, each only once.

    Whoever has the same version, currency, plan and overrides gets the same object: a million customers are few plans.
    """

    def __init__(self, versions: Iterable[PriceBook]) -> None:
        self._versions: dict[str, dict[int, PriceBook]] = {}
        for book in sorted(versions, key=lambda each: (each.book, each.version)):
            known = self._versions.setdefault(book.book, {})
            if book.version in known:
                raise ValueError(f"{book} is there twice")
            known[book.version] = book
        self._schedules: dict[tuple[str, ZoneInfo, date | None], Schedule] = {}
        self._in_currency: dict[tuple[str, int, str], PriceBook] = {}
        self._plans: dict[tuple[str, int, str, str, bytes], Plan] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The books, sorted."""
        return tuple(self._versions)

    def named(self, book: str | None) -> str:
        """The name of a contract's book: the only one, if the contract does not say. Raises LookupError."""
        name = book or (next(iter(self._versions)) if len(self._versions) == 1 else None)
        if name not in self._versions:
            raise LookupError(f"price book {name or '(none named)'}; allowed: {', '.join(self._versions) or '(none)'}")
        return name

    def versions(self, book: str) -> tuple[int, ...]:
        """The numbers of its versions, ascending."""
        return tuple(self._versions.get(book, {}))

    def version(self, book: str, version: int) -> PriceBook:
        """One version of a book. Raises LookupError when there is none."""
        versions = self._versions.get(book, {})
        if version not in versions:
            known = ", ".join(str(each) for each in versions)
            raise LookupError(f"price book {book} has no version {version}; allowed: {known or '(none)'}")
        return versions[version]

    def schedule(self, book: str, zone: ZoneInfo, starts_on: date | None) -> Schedule:
        """How its versions follow each other for contracts of a time zone that start on a day; None: long ago."""
        key = (book, zone, starts_on)
        if key not in self._schedules:
            versions = self._versions[book].values()
            dated = sorted(
                ((local_midnight(each.holds_from(starts_on), zone), each.version, each) for each in versions),
                key=lambda entry: entry[:2],
            )
            self._schedules[key] = Schedule(tuple(at for at, _, _ in dated), tuple(each for _, _, each in dated))
        return self._schedules[key]

    def in_currency(self, book: PriceBook, currency: str) -> PriceBook:
        """The book in a currency. Raises ConfigurationError where it has no such prices."""
        key = (book.book, book.version, currency)
        if key not in self._in_currency:
            self._in_currency[key] = book.in_currency(currency)
        return self._in_currency[key]

    def plan(self, book: PriceBook, plan: str, layers: Sequence[Layer]) -> Plan:
        """A plan of a book in one currency, with a contract's layers over its charges in their order.

        Raises LookupError when the book has no such plan, and ValueError where an override does not fit.
        """
        own = book.plan(plan)
        if own is None:
            raise LookupError(f"{book} has no plan {plan}; allowed: {', '.join(each.id for each in book.plans)}")
        if not any(layers):
            return own
        said = orjson.dumps([layer.written() for layer in layers if layer], option=orjson.OPT_SORT_KEYS)
        key = (book.book, book.version, book.currency, plan, said)
        if key not in self._plans:
            charges = own.charges
            for layer in layers:
                charges = overlaid(charges, layer)
            self._plans[key] = own.model_copy(update={"charges": charges})
        return self._plans[key]


def book_in_force(books: Iterable[PriceBook], period_start: date) -> PriceBook:
    """The book for a period that starts then: of those effective by then the one effective last, then highest version.

        version 1 from 2013-01-01, version 2 from 2013-02-01, version 3 (a correction) from 2013-02-01

        period start | 2012-12-01   2013-01-01   2013-02-01
        in force     |      error            1            3

    Raises LookupError when no book is effective yet.
    """
    effective = [book for book in books if book.effective_at <= period_start]
    if not effective:
        raise LookupError(f"no price book is in force on {period_start}; apply one whose effective_at is not after it")
    return max(effective, key=lambda book: (book.effective_at, book.version, book.book))


def refuse_changed_version(known: Collection[PriceBook], book: PriceBook, file: str) -> None:
    """Nothing, if the version is new or known with the same content: a version is immutable.

    Raises ConfigurationError when it is known with other content.
    """
    versions = {other.version: other.digest for other in known if other.book == book.book}
    stored = versions.get(book.version, book.digest)
    if stored != book.digest:
        allowed = f"allowed: the stored content (digest {stored}), or a new version: {max(versions) + 1}"
        raise ConfigurationError([Fault(file, "version", f"{book} with digest {book.digest}", allowed)])
