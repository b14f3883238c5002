"""PDF files: the same bytes for the same document, and everything in them that the document says."""

import io

import pytest
from pypdf import PdfReader

from invoicing.rendering.app import typeface
from invoicing.rendering.as_facturx import render_facturx
from invoicing.rendering.as_pdf import render_pdf
from invoicing.rendering.cii import render_cii
from invoicing.rendering.wording import wording
from schemas.document import Document
from tests.documents.samples import SAMPLES, document, exact, hostile, line, several_rates, sliced, yen


def text_of(pdf: bytes) -> str:
    """What a reader of the file can copy out of it, without white space, and the zeros that pypdf makes of two bytes."""
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    return "".join(text.replace("\0", "").split())


def amounts(whole: Document, locale: str) -> set[str]:
    """Every amount of the document as the locale writes it."""
    words, totals = wording(whole, locale), whole.totals
    shown = {words.amount(each.net_minor) for each in whole.lines}
    shown |= {words.money(-each.amount_minor) for each in whole.allowances}
    shown |= {words.money(group.tax_minor) for group in whole.taxes if group.rate}
    shown |= {words.money(minor) for minor in (totals.net_minor, totals.gross_minor, totals.due_minor)}
    return {"".join(each.split()) for each in shown}


@pytest.mark.parametrize(
    ("name", "locale"), [*((name, "ja_JP") for name in SAMPLES), ("several_rates", "de_DE"), ("yen", "en_US")]
)
def test_every_amount_is_in_the_text(name: str, locale: str) -> None:
    """A person finds each sum, and copies it as it is shown."""
    whole = SAMPLES[name]()
    text = text_of(render_pdf(whole, locale, typeface()))
    assert {each for each in amounts(whole, locale) if each not in text} == set()


def test_the_same_document_has_the_same_bytes() -> None:
    """Nothing of the moment of rendering is in the file; another document is another file."""
    first, again = (render_facturx(several_rates(), "fr_FR", typeface()) for _ in range(2))
    assert first == again
    assert render_facturx(several_rates().model_copy(update={"customer": "other"}), "fr_FR", typeface()) != first


def test_hostile_texts_are_drawn_and_nothing_else() -> None:
    """No action, script or form comes of a text; what no font has is drawn as a question mark."""
    pdf = render_pdf(hostile(), "en_US", typeface())
    reader = PdfReader(io.BytesIO(pdf))
    text = text_of(pdf)
    assert "<script>alert('x')</script>" in text
    assert ")TjET/F19Tf(free\\)\\051%PDF-1.4endobj" in text
    assert "{0}{title}%s${jndi:ldap://x}{{7*7}}" in text
    assert text.count("word" * 10) == 30  # rows
    assert set(reader.root_object) <= {
        "/Type",
        "/Pages",
        "/PageLayout",
        "/PageMode",
        "/OpenAction",
        "/Lang",
        "/Metadata",
        "/OutputIntents",
        "/ViewerPreferences",
    }
    assert all("/Annots" not in page for page in reader.pages)


def test_many_lines_take_many_pages_with_their_heads() -> None:
    """Each page repeats the names of the columns and has its number, and no line is lost."""
    lines = [
        line(at, f"Service number {at}", at, slices=sliced((None, "1", f"0.{at:02}", "0"))) for at in range(1, 300)
    ]
    pages = PdfReader(io.BytesIO(render_pdf(document(lines), "en_US", typeface()))).pages
    texts = [page.extract_text() for page in pages]
    assert len(texts) > 5
    assert all("Description" in text and f"Page {number}" in text for number, text in enumerate(texts, 1))
    found = " ".join(texts)
    assert all(f"Service number {at}" in found for at in range(1, 300))


def test_a_description_longer_than_a_page_goes_on_on_the_next() -> None:
    """It is broken between rows, and its amount stands once."""
    whole = document([line(1, "A long story. " * 700, 4711)])
    pdf = render_pdf(whole, "en_US", typeface())
    assert len(PdfReader(io.BytesIO(pdf)).pages) > 2
    assert text_of(pdf).count("story.") == 700
    assert text_of(pdf).count("47.11") == 3  # the line, the subtotal, and what the tax is on


def test_the_e_invoice_is_inside() -> None:
    """As the one attachment, with the name that Factur-X asks for, to the byte."""
    reader = PdfReader(io.BytesIO(render_facturx(yen(), "ja_JP", typeface())))
    assert {name: list(files) for name, files in reader.attachments.items()} == {
        "factur-x.xml": [render_cii(yen()).encode()]
    }


def test_a_number_is_never_broken() -> None:
    """The widest amount and quantity stand in one row, smaller than the others."""
    widest = line(1, "Wide", -(2**62), quantity=exact("-12345678901234567890123456789.123456789"), unit="widgets")
    pages = PdfReader(io.BytesIO(render_pdf(document([widest]), "de_DE", typeface()))).pages
    text = pages[0].extract_text().replace("\xa0", " ")
    assert "-46.116.860.184.273.879,04" in text
    assert "-12.345.678.901.234.567.890.123.456.789,123456789" in text
    assert "-54.879.063.619.285.916,06 €" in text


@pytest.mark.parametrize("locale", ["hi_IN", "ar_EG", "he_IL"])
def test_letters_that_would_be_drawn_wrong_are_left_to_pages(locale: str) -> None:
    """Days and countries have their codes, amounts their digits, and no mark without a shape becomes a question mark."""
    whole = several_rates()
    text = text_of(render_pdf(whole, locale, typeface()))
    assert "2026-04-01" in text
    assert "?" not in text
    plain = {each.replace("\u200f", "").replace("\u200e", "") for each in amounts(whole, locale)}
    assert {each for each in plain if each not in text} == set()
