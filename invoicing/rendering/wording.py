"""How a locale writes a document: amounts, quantities, days, and the words around them. Core.

Decides the form only: what is formatted is final, so every amount keeps all its decimals and nothing is rounded here.
The words are there in English, German, French and Japanese; other languages have English words around their own
numbers and days.
"""

import copy
import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from functools import cache
from types import MappingProxyType

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import NumberPattern

from schemas.document import Document, Slice
from schemas.money import major

_DIGITS_MAX = 60  # of the longest number: a quantity has 38
_TOUCHING = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")  # a code such as KWD, and a digit
_KEYS = (
    "invoice", "credit_note", "number", "issued", "due_on", "period", "seller", "buyer", "customer", "vat_id",
    "tax_number", "registration", "email", "credits", "line", "description", "quantity", "price", "amount", "tax",
    "lines_sum", "net", "gross", "prepaid", "due", "up_to", "flat", "rated_now", "billed_before", "on", "page",
    "explanation",
)  # fmt: skip
_WORDS = {
    "en": (
        "Invoice", "Credit note", "Number", "Issued", "Due", "Period", "Seller", "Billed to", "Customer", "VAT ID",
        "Tax number", "Registration", "E-mail", "Credits", "Line", "Description", "Quantity", "Unit price", "Amount",
        "Tax", "Sum of lines", "Subtotal", "Total", "Prepaid", "Amount due", "up to", "flat", "rated now",
        "billed before", "on", "Page", "How this was calculated",
    ),
    "de": (
        "Rechnung", "Gutschrift", "Nummer", "Ausgestellt", "Fällig", "Zeitraum", "Verkäufer", "Rechnung an", "Kunde",
        "USt-IdNr.", "Steuernummer", "Handelsregister", "E-Mail", "Zu Rechnung", "Position", "Beschreibung", "Menge",
        "Einzelpreis", "Betrag", "Steuer", "Summe der Positionen", "Nettobetrag", "Gesamtbetrag", "Vorausbezahlt",
        "Zahlbetrag", "bis", "pauschal", "jetzt berechnet", "zuvor abgerechnet", "auf", "Seite", "Berechnung",
    ),
    "fr": (
        "Facture", "Avoir", "Numéro", "Émise le", "Échéance", "Période", "Vendeur", "Facturé à", "Client", "N° TVA",
        "N° fiscal", "Immatriculation", "E-mail", "Sur facture", "Ligne", "Désignation", "Quantité", "Prix unitaire",
        "Montant", "Taxe", "Total des lignes", "Total HT", "Total TTC", "Déjà réglé", "Net à payer", "jusqu'à",
        "forfait", "calculé à présent", "facturé avant", "sur", "Page", "Détail du calcul",
    ),
    "ja": (
        "請求書", "クレジットノート", "番号", "発行日", "支払期限", "期間", "発行者", "請求先", "顧客", "VAT番号",
        "税務番号", "登録番号", "メール", "対象請求書", "行", "内容", "数量", "単価", "金額", "税", "明細合計", "小計",
        "合計", "前払い", "請求額", "まで", "定額", "今回計算", "前回請求", "対象", "ページ", "計算内訳",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """A document in the words and numbers of a locale."""

    locale: Locale
    words: MappingProxyType[str, str]
    currency: str
    minor_units: int
    letters_apart: bool = False
    """Letters are drawn one by one from the left: where these read wrong, days and countries have codes instead."""

    def __getitem__(self, word: str) -> str:
        """A word."""
        return self.words[word]

    @property
    def language(self) -> str:
        """The locale as a web page names it: `de-DE`."""
        return str(self.locale).replace("_", "-")

    def money(self, minor: int) -> str:
        """An amount with its currency."""
        pattern = _fixed(self.locale, "currency", self.minor_units)
        text = _applied(pattern, major(minor, self.minor_units), self.locale, currency=self.currency)
        return _TOUCHING.sub("\xa0", text)

    def amount(self, minor: int) -> str:
        """An amount without its currency, with all decimals of it."""
        return self.number(major(minor, self.minor_units), self.minor_units)

    def number(self, value: Decimal, decimals_min: int = 0) -> str:
        """A number with all decimals that it has, and at least so many."""
        decimals = max(decimals_min, decimals_of(value))
        return _applied(_fixed(self.locale, "decimal", decimals), value, self.locale)

    def price(self, value: Decimal) -> str:
        """A unit price: at least the decimals of the currency."""
        return self.number(value, self.minor_units)

    def percent(self, value: Decimal) -> str:
        """A rate: 8.875 as `8.875 %`, or as the locale writes it."""
        decimals = decimals_of(value)
        with localcontext(prec=_DIGITS_MAX):
            return _applied(_fixed(self.locale, "percent", decimals), value / 100, self.locale)

    def day(self, day: date) -> str:
        """A day."""
        text = format_date(day, "medium", locale=self.locale)
        return day.isoformat() if self.letters_apart and _joined_or_turned(text) else text

    def country(self, code: str) -> str:
        """A country's name."""
        text = self.locale.territories.get(code) or code
        return code if self.letters_apart and _joined_or_turned(text) else text

    def slice(self, rated: Slice) -> str:
        """A slice as a sum that can be checked by hand."""
        tier = "" if rated.up_to is None else f"{self['up_to']} {self.number(rated.up_to)}: "
        flat = f" + {self.price(rated.flat)} {self['flat']}" if rated.flat else ""
        product = f"{self.number(rated.quantity)} × {self.price(rated.unit_price)}"  # noqa: RUF001  a product
        label = f"{rated.label}: " if rated.label else ""
        return f"{label}{tier}{product}{flat} = {self.price(rated.amount)}"


def wording(document: Document, locale: str, *, letters_apart: bool = False) -> Wording:
    r"""The wording of a document in a locale such as `de_DE`. Raises ValueError for a locale that nobody knows.

    >>> german = Wording(_locale("de_DE"), _words("de"), "EUR", 2)
    >>> german.money(-123456789), german.number(Decimal("0.00125")), german.percent(Decimal("8.875"))
    ('-1.234.567,89\xa0€', '0,00125', '8,875\xa0%')
    >>> Wording(_locale("hi_IN"), _words("hi"), "INR", 2).money(1234567890)
    '₹1,23,45,678.90'
    """
    parsed = _locale(locale)
    return Wording(parsed, _words(parsed.language), document.currency, document.minor_units, letters_apart)


def decimals_of(value: Decimal) -> int:
    """How many decimals a number has, without trailing zeros.

    >>> decimals_of(Decimal("12.500")), decimals_of(Decimal("1E+3"))
    (1, 0)
    """
    _, _, fraction = f"{value:f}".partition(".")
    return len(fraction.rstrip("0"))


def _joined_or_turned(text: str) -> bool:
    """Whether letters drawn one by one from the left would read wrong.

    >>> _joined_or_turned("1 avr. 2026"), _joined_or_turned("1 अप्रैल 2026"), _joined_or_turned("1 أبريل")
    (False, True, True)
    """
    return any(unicodedata.category(each)[0] == "M" or unicodedata.bidirectional(each) in {"R", "AL"} for each in text)


@cache
def _locale(name: str) -> Locale:
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError) as error:
        raise ValueError(f"locale {name!r}; allowed: one of CLDR, such as de_DE, en_US, fr_FR, ja_JP") from error


@cache
def _words(language: str) -> MappingProxyType[str, str]:
    return MappingProxyType(dict(zip(_KEYS, _WORDS.get(language, _WORDS["en"]), strict=True)))


@cache
def _fixed(locale: Locale, kind: str, decimals: int) -> NumberPattern:
    """The locale's pattern with so many decimals: its own may have fewer than the amount."""
    patterns: dict[str, NumberPattern] = {
        "currency": locale.currency_formats["standard"],
        "decimal": locale.decimal_formats[None],
        "percent": locale.percent_formats[None],
    }
    pattern = copy.copy(patterns[kind])
    pattern.frac_prec = (decimals, decimals)
    return pattern


def _applied(pattern: NumberPattern, value: Decimal, locale: Locale, currency: str | None = None) -> str:
    with localcontext(prec=_DIGITS_MAX):
        text: str = pattern.apply(value, locale, currency=currency, currency_digits=False, decimal_quantization=True)
    return text
