"""A document adds up or is none, and its texts are fit to be shown."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from schemas.configuration import ConfigurationError
from schemas.document import Document, Rate
from schemas.party import Seller, parse_seller
from schemas.shown import shown
from tests.documents.samples import SAMPLES, VAT_7, document, line, several_rates


def test_every_sample_reads_back_from_its_own_json() -> None:
    """A document is a value: what it dumps is what it is made from."""
    for make in SAMPLES.values():
        made = make()
        assert Document.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("part", "by", "message"),
    [
        ("lines_minor", 1, "lines come to 402225, not 402226"),
        ("allowances_minor", 1, "allowances come to 32025, not 32026"),
        ("net_minor", 1, "lines less allowances come to 370200, not 370201"),
        ("tax_minor", -1, "tax groups come to 70014, not 70013"),
        ("gross_minor", 1, "net and tax come to 440214, not 440215"),
        ("due_minor", 1, "gross less prepaid come to 390214, not 390215"),
    ],
)
def test_a_sum_that_is_wrong_is_named(part: str, by: int, message: str) -> None:
    """Each total is checked against what it is the sum of."""
    wrong = several_rates().model_dump()
    wrong["totals"][part] += by
    with pytest.raises(ValidationError, match=message):
        Document.model_validate(wrong)


def test_a_tax_group_has_the_lines_that_it_taxes() -> None:
    """The base of a group is the sum of its lines less allowances, and every line has a group."""
    wrong = document([line(1, "a", 100), line(2, "b", 50, rates=VAT_7)]).model_dump()
    wrong["taxes"][0]["base_minor"], wrong["taxes"][1]["base_minor"] = 90, 60
    with pytest.raises(ValidationError, match=r"what is taxed S USt\. 19 % come to 100, not 90"):
        Document.model_validate(wrong)
    wrong = document([line(1, "a", 100)]).model_dump()
    wrong["lines"][0]["rates"] = [*wrong["lines"][0]["rates"], Rate(name="City", percent=Decimal(1)).model_dump()]
    with pytest.raises(ValidationError, match=r"S USt\., City has no tax group"):
        Document.model_validate(wrong)


def test_two_taxes_on_a_line_are_two_groups() -> None:
    """Each rate of a line rounds on its own: 8.875, 2.125 and 0.5 % of 99.99 are 8.87, 2.12 and 0.50."""
    rates = tuple(
        Rate(name=name, percent=Decimal(rate)) for name, rate in (("A", "8.875"), ("B", "2.125"), ("C", "0.5"))
    )
    taxed = document([line(1, "a", 9999, rates=rates)], currency="USD")
    assert [group.tax_minor for group in taxed.taxes] == [887, 212, 50]
    assert taxed.totals.gross_minor == 11148


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b\x1b[31m\x7f", "a�b�[31m�"),
        ("a\r\nb\tc\x85d", "a  b c d"),
        ("\u202e\u2066x\u2069", "��x�"),
        ("\ue000\U0010ffff\uffff", "���"),
        ("Zoë 株式会社 😀 \u200d مرحبا", "Zoë 株式会社 😀 \u200d مرحبا"),
    ],
)
def test_texts_cannot_disturb_what_stands_around_them(text: str, expected: str) -> None:
    """Controls, overrides of the direction and what is no character are replaced; letters of all alphabets stay."""
    assert shown(text) == expected


def test_the_sellers_file_lists_all_its_faults() -> None:
    """One message names each key with its fault."""
    with pytest.raises(ConfigurationError) as error:
        parse_seller("{country: Germany, due_days: 400, vat: DE1}", "seller.yaml")
    assert [fault.key for fault in error.value.faults] == ["country", "name", "due_days", "vat"]


def test_a_seller_has_one_canonical_form() -> None:
    """It reads back, and keys without a value are not part of it."""
    seller = parse_seller("{name: Tin Can, country: IE, notes: [Thanks]}", "seller.yaml")
    assert seller.canonical() == '{"country":"IE","name":"Tin Can","notes":["Thanks"]}'
    assert Seller.from_canonical(seller.canonical()) == seller
