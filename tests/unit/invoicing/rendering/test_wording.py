"""How locales write what is final already."""

from datetime import date
from decimal import Decimal

import pytest

from invoicing.rendering.wording import wording
from tests.documents.samples import document, line

LONG = Decimal("12345678901234567890123456789.123456789")


@pytest.mark.parametrize(
    ("locale", "currency", "minor", "money", "number", "percent", "day"),
    [
        ("en_US", "USD", -123456789, "-$1,234,567.89", "1,234,567.00125", "8.875%", "Apr 1, 2026"),
        ("de_DE", "EUR", -123456789, "-1.234.567,89\xa0€", "1.234.567,00125", "8,875\xa0%", "01.04.2026"),
        ("fr-FR", "EUR", 123456789, "1\u202f234\u202f567,89\xa0€", "1\u202f234\u202f567,00125", "8,875\xa0%", "1 avr. 2026"),
        ("ja_JP", "JPY", 123456789, "￥123,456,789", "1,234,567.00125", "8.875%", "2026/04/01"),
        ("hi_IN", "INR", 1234567890, "₹1,23,45,678.90", "12,34,567.00125", "8.875%", "1 अप्रैल 2026"),
        ("en_GB", "KWD", 1234567, "KWD\xa01,234.567", "1,234,567.00125", "8.875%", "1 Apr 2026"),
        ("pt_BR", "JPY", 1234567, "JP¥\xa01.234.567", "1.234.567,00125", "8,875%", "1 de abr. de 2026"),
    ],
)  # fmt: skip
def test_a_locale_writes_amounts_and_days(
    locale: str, currency: str, minor: int, money: str, number: str, percent: str, day: str
) -> None:
    """The decimals are those of the currency and of the number, whatever the locale is used to."""
    words = wording(document([line(1, "a", 100)], currency=currency), locale)
    assert words.money(minor) == money
    assert words.number(Decimal("1234567.00125")) == number
    assert words.percent(Decimal("8.8750")) == percent
    assert words.day(date(2026, 4, 1)) == day


def test_the_longest_number_keeps_its_digits() -> None:
    """38 digits, more than decimals have by default, are written as they are."""
    words = wording(document([line(1, "a", 100)]), "de_DE")
    assert words.number(LONG) == "12.345.678.901.234.567.890.123.456.789,123456789"
    assert words.money(2**63 - 1) == "92.233.720.368.547.758,07\xa0€"


def test_a_language_without_words_has_english_ones() -> None:
    """Its numbers are its own."""
    words = wording(document([line(1, "a", 100)]), "da_DK")
    assert (words["gross"], words.money(123456), words.language) == ("Total", "1.234,56\xa0€", "da-DK")


@pytest.mark.parametrize("locale", ["xx_YY", "", "../de", "klingon"])
def test_an_unknown_locale_is_refused_with_what_is_allowed(locale: str) -> None:
    """The message names the locale and gives examples."""
    with pytest.raises(ValueError, match="allowed: one of CLDR, such as de_DE"):
        wording(document([line(1, "a", 100)]), locale)
