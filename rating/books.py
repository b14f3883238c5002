"""Which version of a price book is in force, and that a version never changes. Core."""

from collections.abc import Collection, Iterable
from datetime import date

from schemas.configuration import ConfigurationError, Fault
from schemas.price_book import PriceBook


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
        raise ConfigurationError([Fault(file, "version", f"{book.version} with digest {book.digest}", allowed)])
