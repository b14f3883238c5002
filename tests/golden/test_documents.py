"""Documents in each format that is text, whole, as a person reviews them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from invoicing.rendering.as_html import render_html
from invoicing.rendering.as_json import render_json
from invoicing.rendering.as_text import render_text
from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.cii import render_cii
from schemas.document import Document
from tests.documents.samples import SAMPLES

GOLDEN = Path(__file__).with_name("documents")
FORMATS: dict[str, Callable[[Document], str]] = {
    "txt": render_text,
    "json": lambda document: render_json(document).decode(),
    "de.html": lambda document: render_html(document, "de_DE"),
    "en.html": lambda document: render_html(document, "en_US"),
    "ja.html": lambda document: render_html(document, "ja_JP"),
    "ubl.xml": render_ubl,
    "cii.xml": render_cii,
}
REVIEWED = [
    ("several_rates", "txt"), ("several_rates", "json"), ("several_rates", "de.html"), ("several_rates", "ubl.xml"),
    ("several_rates", "cii.xml"), ("credit_note", "txt"), ("credit_note", "ubl.xml"), ("hostile", "txt"),
    ("hostile", "en.html"), ("yen", "ja.html"), ("outside", "ubl.xml"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "form"), REVIEWED)
def test_a_document_reads_as_reviewed(sample: str, form: str) -> None:
    """What is rendered is what stands in the file, to the byte."""
    assert FORMATS[form](SAMPLES[sample]()) == (GOLDEN / f"{sample}.{form}").read_text()
