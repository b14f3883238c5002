"""A document as Factur-X, which is ZUGFeRD 2: a PDF file for people with the e-invoice for programs inside. Core."""

from invoicing.rendering.as_pdf import Attachment, Typeface, render_pdf
from invoicing.rendering.cii import render_cii
from invoicing.rendering.pdf_metadata import facturx_metadata
from schemas.document import Document

_FILE = "factur-x.xml"


def render_facturx(document: Document, locale: str, typeface: Typeface) -> bytes:
    """The file, of the profile EN 16931. Raises NotExpressibleError."""
    attachment = Attachment(
        name=_FILE,
        content=render_cii(document).encode(),
        description="Factur-X invoice",
        metadata=facturx_metadata(_FILE),
    )
    return render_pdf(document, locale, typeface, attachment)
