"""Price books: what is legal, what is said about what is not, and digests."""

from decimal import Decimal

import pytest

from schemas.charges import FlatCharge, GraduatedCharge, PackageCharge, VolumeCharge
from schemas.configuration import ConfigurationError
from schemas.price_book import PriceBook, parse_price_book

METERS = {"departures": "COUNT", "seats": "SUM", "miles": "SUM"}

BOOK = """
book: airport
version: 1
effective_at: 2013-01-01
currency: USD
tax: {mode: exclusive, name: "NY sales tax", rate_percent: 8.875}
default_plan: airline
plans:
  - id: airline
    name: Airline
    charges:
      - {id: terminal, model: flat, description: Terminal desk rent, amount: 2500.00}
      - id: departures
        model: graduated
        meter: departures
        tiers: [{up_to: 100, unit_price: 12.50, flat: 0}, {up_to: null, unit_price: 11.00}]
      - {id: seats, model: volume, meter: seats, tiers: [{up_to: null, unit_price: "0.85"}]}
      - {id: miles, model: package, meter: miles, size: 1000, price: 4.20, free_units: 0, round: up}
policies: {zero_usage_flat: first_tier}
"""


def faults(text: str) -> dict[str, str]:
    """Key and what is allowed, of each fault in a text that must have some."""
    with pytest.raises(ConfigurationError) as caught:
        parse_price_book(text, "book.yaml", METERS)
    assert {fault.file for fault in caught.value.faults} == {"book.yaml"}
    return {fault.key: fault.allowed for fault in caught.value.faults}


def test_all_four_models_are_read_exactly() -> None:
    """Each model has its own type, and prices keep their digits."""
    book = parse_price_book(BOOK, "book.yaml", METERS)
    charges = book.plans[0].charges
    assert [type(charge) for charge in charges] == [FlatCharge, GraduatedCharge, VolumeCharge, PackageCharge]
    assert isinstance(charges[1], GraduatedCharge)
    assert charges[1].tiers[0].unit_price == Decimal("12.50")
    assert [charge.title for charge in charges] == ["Terminal desk rent", "departures", "seats", "miles"]


def test_the_digest_is_of_the_meaning() -> None:
    """Comments, the order of keys, trailing zeros and written-out defaults change no digest; a price does."""
    book = parse_price_book(BOOK, "book.yaml", METERS)
    same = BOOK.replace("12.50, flat: 0", "12.500").replace("policies: {zero_usage_flat: first_tier}", "# the default")
    same = "currency: USD\n" + same.replace("currency: USD\n", "").replace(", free_units: 0, round: up", "")
    other = BOOK.replace("12.50", "12.51")
    assert parse_price_book(same, "same.yaml", METERS).digest == book.digest
    assert parse_price_book(other, "other.yaml", METERS).digest != book.digest


def test_the_canonical_form_is_held() -> None:
    """The digest of a stored book is the same for ever, because invoices name it."""
    book = parse_price_book(BOOK, "book.yaml", METERS)
    assert book.canonical().startswith(
        '{"book":"airport","currency":"USD","default_plan":"airline","effective_at":"2013-01-01"'
    )
    assert book.digest == "5a3cf79f2212c49d5b6747fa9a0b3e8530494223ee2b886b1d704bc6faf5e5ba"


def test_a_book_comes_back_from_its_canonical_form() -> None:
    """Storing a book as canonical JSON and reading it gives an equal book."""
    book = parse_price_book(BOOK.replace("12.50", "0.000000000001"), "book.yaml", METERS)
    assert PriceBook.from_canonical(book.canonical()) == book
    assert '"0.000000000001"' in book.canonical()


def test_all_faults_are_told_at_once() -> None:
    """Faults of single keys do not hide those between keys, and each names its place."""
    text = """
book: Air port
version: 0
effective_at: 20130101
tax: {mode: sideways, name: VAT, rate_percent: 101}
default_plan: nope
extra: 1
plans:
  - id: a
    charges: []
  - id: a
    charges:
      - {id: x, model: flat, amount: 1.0000000000001}
      - {id: x, model: tiered, meter: zz}
      - id: g
        model: graduated
        meter: zz
        tiers:
          - {up_to: 10, unit_price: 1}
          - {up_to: null, unit_price: true}
          - {up_to: 5, unit_price: -1}
          - {unit_price: 2}
      - {id: p, model: package, meter: seats, size: -1, price: 4, round: sideways}
      - {id: w, model: volume, meter: seats, tiers: [{up_to: 5, unit_price: 1}]}
"""
    found = faults(text)
    graduated = "plans[1].charges[2]"
    assert set(found) == {
        "book", "version", "effective_at", "currency", "tax.mode", "tax.rate_percent", "default_plan", "extra",
        "plans[0].charges", "plans[1].id", "plans[1].charges[0].amount", "plans[1].charges[1]", "plans[1].charges[1].id",
        "plans[1].charges[1].meter", f"{graduated}.meter", f"{graduated}.tiers[1].up_to", f"{graduated}.tiers[1].unit_price",
        f"{graduated}.tiers[2].up_to", f"{graduated}.tiers[2].unit_price", f"{graduated}.tiers[3].up_to",
        "plans[1].charges[3].size", "plans[1].charges[3].round", "plans[1].charges[4].tiers[0].up_to",
    }  # fmt: skip
    assert found[f"{graduated}.tiers[2].up_to"] == "allowed: more than 10, where the tier before it ends"
    assert found[f"{graduated}.meter"] == "allowed: a known meter: departures, miles, seats"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("currency: USD", "currency: DOLLAR", "currency"),
        ("currency: USD\n", "", "currency"),
        ("default_plan: airline", "default_plan: pilot", "default_plan"),
        ("up_to: 100", "up_to: 0", "plans[0].charges[1].tiers[0].up_to"),
        ("up_to: 100", "up_to: 0.0000000001", "plans[0].charges[1].tiers[0].up_to"),
        ("up_to: 100", "up_to: null", "plans[0].charges[1].tiers[0].up_to"),
        ("12.50", "1e3", "plans[0].charges[1].tiers[0].unit_price"),
        ("12.50", "100000000000000000", "plans[0].charges[1].tiers[0].unit_price"),
        ("12.50", "1.0e-999999", "plans[0].charges[1].tiers[0].unit_price"),
        ("amount: 2500.00", "amount: yes", "plans[0].charges[0].amount"),
        ("size: 1000", "size: 0", "plans[0].charges[3].size"),
        ("meter: miles", "meter: kilometres", "plans[0].charges[3].meter"),
        ("model: package", "modle: package", "plans[0].charges[3]"),
        ("effective_at: 2013-01-01", "effective_at: 2013-02-30", "effective_at"),
        ("version: 1", 'version: "1"', "version"),
    ],
)
def test_one_fault_is_told_alone(old: str, new: str, key: str) -> None:
    """A single change that makes the book illegal gives exactly one fault, at its key."""
    assert old in BOOK
    assert list(faults(BOOK.replace(old, new))) == [key]


def test_a_float_is_refused_even_where_no_yaml_is_read() -> None:
    """A price that is a float is an error, also when a book is made in code."""
    with pytest.raises(ValueError, match="never a float"):
        FlatCharge.model_validate({"id": "rent", "model": "flat", "amount": 0.1})
