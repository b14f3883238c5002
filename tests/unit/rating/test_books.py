"""Which version of a price book is in force."""

from datetime import date

import pytest

from rating.books import book_in_force, refuse_changed_version
from schemas.configuration import ConfigurationError
from schemas.price_book import PriceBook


def book(version: int, effective_at: str, amount: int = 1) -> PriceBook:
    plan = {"id": "p", "charges": [{"id": "rent", "model": "flat", "amount": amount}]}
    return PriceBook.model_validate(
        {"book": "b", "version": version, "effective_at": effective_at, "currency": "USD", "plans": [plan]}
    )


def test_the_latest_effective_version_is_in_force() -> None:
    """The last effective date by the period's start wins, then the highest version."""
    books = [book(3, "2013-02-01"), book(1, "2013-01-01"), book(2, "2013-02-01"), book(4, "2012-06-01")]
    in_force = [book_in_force(books, date(2013, month, 1)).version for month in (1, 2, 3)]
    assert in_force == [1, 3, 3]


def test_no_book_in_force_is_an_error() -> None:
    """Before the first effective date there is nothing to rate by."""
    with pytest.raises(LookupError, match="2012-12-01"):
        book_in_force([book(1, "2012-12-02")], date(2012, 12, 1))


def test_a_version_never_changes() -> None:
    """The same version with the same content is fine, with other content refused; a new version is fine."""
    known = [book(1, "2013-01-01"), book(2, "2013-02-01")]
    refuse_changed_version(known, book(1, "2013-01-01"), "book.yaml")
    refuse_changed_version(known, book(3, "2013-01-01", amount=2), "book.yaml")
    with pytest.raises(ConfigurationError, match="or a new version: 3"):
        refuse_changed_version(known, book(1, "2013-01-01", amount=2), "book.yaml")
