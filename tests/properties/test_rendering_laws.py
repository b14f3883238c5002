"""Whatever a document holds, every rendering holds the same sums."""

import io
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from invoicing.rendering.app import typeface
from invoicing.rendering.as_html import render_html
from invoicing.rendering.as_json import render_json
from invoicing.rendering.as_pdf import render_pdf
from invoicing.rendering.as_text import amount_text, render_text
from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.cii import render_cii
from invoicing.rendering.wording import wording
from schemas.document import AllowanceKind, Document, Rate
from schemas.money import major
from tests.documents.samples import allowance, document, line

RATES = tuple((Rate(name="VAT", percent=Decimal(percent)),) for percent in ("5.5", "7", "8.875", "19", "20"))
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
UBL = "{urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2}"
CII = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"


LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), min_size=1, max_size=40).filter(str.strip)


@st.composite
def documents(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> Document:
    """Lines of any amounts and words at some rates, allowances at the same rates, perhaps prepaid."""
    lines = [
        line(at, draw(words), draw(st.integers(-(10**12), 10**12)), rates=draw(st.sampled_from(RATES)),
             quantity=draw(st.decimals(-(10**9), 10**9, places=9)), group=draw(st.sampled_from(["", "Usage"])))
        for at in range(1, draw(st.integers(1, 6)) + 1)
    ]  # fmt: skip
    allowances = [
        allowance(AllowanceKind.DISCOUNT, draw(words), draw(st.integers(1, 10**6)), draw(st.sampled_from(lines)).rates)
        for _ in range(draw(st.integers(0, 2)))
    ]
    currency = draw(st.sampled_from(["EUR", "USD", "JPY"]))
    return document(lines, allowances, draw(st.integers(0, 10**6)), currency=currency, notes=(draw(words),))


def expected(whole: Document) -> dict[str, Decimal]:
    """The totals in units of the currency."""
    return {name.removesuffix("_minor"): major(value, whole.minor_units) for name, value in whole.totals}


def xml_sums(text: str, prefix: str) -> Any:
    """Reads all amounts of a name."""
    root = ET.fromstring(text)
    return lambda name: [Decimal(each.text or "") for each in root.iter(prefix + name)]


@given(documents())
@settings(max_examples=40)
def test_json_has_the_sums(whole: Document) -> None:
    """Its lines add up to its totals, and its texts are the document's."""
    parsed = orjson.loads(render_json(whole))
    assert {name: Decimal(value) for name, value in parsed["totals"].items()} == expected(whole)
    assert sum(Decimal(each["net"]) for each in parsed["lines"]) == expected(whole)["lines"]
    assert [each["description"] for each in parsed["lines"]] == [each.description for each in whole.lines]


@given(documents())
@settings(max_examples=40)
def test_e_invoices_have_the_sums(whole: Document) -> None:
    """In UBL and in CII: lines, allowances, tax groups, totals, and each tax is its base times its rate, rounded once."""
    sums = expected(whole)
    ubl, cii = xml_sums(render_ubl(whole), UBL), xml_sums(render_cii(whole), CII)
    total, *of_lines = ubl("LineExtensionAmount")
    assert sum(of_lines) == total == sums["lines"] == sum(cii("LineTotalAmount")[:-1]) == cii("LineTotalAmount")[-1]
    assert sum(ubl("TaxAmount")[1:]) == ubl("TaxAmount")[0] == sums["tax"] == sum(cii("CalculatedAmount"))
    assert ubl("TaxInclusiveAmount") == cii("GrandTotalAmount") == [sums["gross"]]
    assert ubl("PayableAmount") == cii("DuePayableAmount") == [sums["due"]]
    assert sum(ubl("TaxableAmount")) == sum(cii("BasisAmount")) == sums["net"]
    assert sum(ubl("Amount")) == sum(cii("ActualAmount")) == sums["allowances"]


class Numbers(HTMLParser):
    """The texts of the cells with numbers."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.cells: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element opens."""
        if tag in {"td", "th"}:
            self.inside = ("class", "number") in attrs
            self.cells += [""] if self.inside else []

    def handle_data(self, data: str) -> None:
        """A text."""
        if self.inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        """An element closes."""
        self.inside = self.inside and tag not in {"td", "th"}


@given(documents(), st.sampled_from(["de_DE", "en_US", "fr_FR", "ja_JP", "hi_IN", "ar_EG"]))
@settings(max_examples=40)
def test_pages_and_texts_have_the_sums(whole: Document, locale: str) -> None:
    """The last cell of each line of a page is its amount, the sums follow; the text for a terminal has them too."""
    words, units = wording(whole, locale), whole.minor_units
    cells = Numbers(render_html(whole, locale)).cells
    lines = [words.amount(each.net_minor) for each in whole.lines]
    assert cells[9 : 9 + 5 * len(lines) : 5] == lines
    assert {words.money(whole.totals.net_minor), words.money(whole.totals.gross_minor)} <= set(cells)
    rows = render_text(whole).splitlines()
    for minor in (whole.totals.net_minor, whole.totals.gross_minor, *(each.net_minor for each in whole.lines)):
        assert any(row.endswith(f" {amount_text(major(minor, units), units)}") for row in rows)


@given(documents(LATIN))
@settings(max_examples=12)
def test_pdf_files_have_the_sums(whole: Document) -> None:
    """As text that can be copied, whatever stands around it."""
    pages = PdfReader(io.BytesIO(render_pdf(whole, "de_DE", typeface()))).pages
    text = "".join("".join(page.extract_text() for page in pages).split())
    words = wording(whole, "de_DE")
    totals = whole.totals
    shown = [words.money(minor) for minor in (totals.net_minor, totals.gross_minor, totals.due_minor)]
    shown += [words.amount(each.net_minor) for each in whole.lines]
    assert [each for each in shown if "".join(each.split()) not in text] == []
