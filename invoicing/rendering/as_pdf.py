"""A document as a PDF file, A4, of the kind PDF/A-3: everything that is needed to show it is in it. Core.

Owns that the same document, locale and fonts give the same bytes: no clock is read, no random number drawn.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from fpdf import FPDF
from fpdf.enums import Align, MethodReturnValue
from fpdf.fonts import TTFFont

from invoicing.rendering.as_html import address, cells, explained, facts, footnotes, sums
from invoicing.rendering.pdf_metadata import xmp
from invoicing.rendering.wording import Wording, wording
from schemas.document import Document, Line

_PAGE = (210, 297)
_MARGIN = 16
_BOTTOM = 20
_WIDTHS = (9, 75, 28, 26, 15, 25)  # position, description, quantity, unit price, tax, amount
_WIDTH = sum(_WIDTHS)
_ROW_NM = 476_280  # of a row for each point of size: 1.35 times a point, which is 0.3528 mm
_GREY = 90


class Typeface(Protocol):
    """The fonts of a file: one for text, one for what stands out, and one for scripts that these two lack."""

    def drawable(self, text: str) -> str:
        """The text with what no font has replaced."""

    def files_for(self, text: str) -> tuple[IO[bytes], IO[bytes], IO[bytes] | None]:
        """The three fonts with the glyphs of a drawable text; the third only where it takes any of it."""


@dataclass(frozen=True)
class Style:
    """How a text is set."""

    size: int = 9
    bold: bool = False
    grey: bool = False

    @property
    def height(self) -> Any:
        """Of a row, in millimetres."""
        return self.size * _ROW_NM / 10**6


_TEXT, _SMALL, _STRONG, _TITLE = Style(), Style(7, grey=True), Style(bold=True), Style(16, bold=True)


@dataclass(frozen=True)
class Attachment:
    """A file inside the PDF file, which says the same for programs."""

    name: str
    content: bytes
    description: str
    metadata: str
    """Its part of the XMP metadata."""


def render_pdf(document: Document, locale: str, typeface: Typeface, attachment: Attachment | None = None) -> bytes:
    """The file, in the words and numbers of a locale such as `de_DE`."""
    words = wording(document, locale, letters_apart=True)
    page = _Page(document, words, typeface)
    page.open(attachment)
    page.parties()
    page.table_head()
    for line in document.lines:
        page.line(line)
    page.sums()
    page.foot()
    return bytes(page.pdf.output())


@dataclass
class _Page:
    """A file in the making, and where on the page it is."""

    document: Document
    words: Wording
    typeface: Typeface
    pdf: FPDF = field(default_factory=lambda: FPDF(format=_PAGE, enforce_compliance="PDF/A-3B"))
    group: str = ""

    def open(self, attachment: Attachment | None) -> None:
        """The file's properties, and the title."""
        pdf, document = self.pdf, self.document
        title = f"{self.words[document.kind]} {document.number}"
        pdf.set_auto_page_break(False)
        pdf.alias_nb_pages("")
        pdf.set_margins(_MARGIN, _MARGIN)
        pdf.set_title(title)
        pdf.set_creator("Meterline")
        pdf.set_producer("Meterline")
        pdf.set_lang(self.words.language)
        pdf.set_creation_date(document.issued_at)
        pdf.set_xmp_metadata(xmp(title, document.issued_at, attachment.metadata if attachment else ""))
        if attachment:
            pdf.embed_file(
                bytes=attachment.content, basename=attachment.name, mime_type="text/xml", desc=attachment.description,
                creation_date=document.issued_at, modification_date=document.issued_at,
                associated_file_relationship="Alternative", compress=True,
            )  # fmt: skip
        self._fonts()
        self._new_page()
        self.write([title], _WIDTH, _TITLE)
        pdf.ln(4)

    def parties(self) -> None:
        """Seller and buyer side by side, and what stands beside them."""
        words, document, top = self.words, self.document, self.pdf.y
        rows = [[words[role], *address(party, words)] for role, party in
                (("seller", document.seller), ("buyer", document.buyer)) if party]  # fmt: skip
        rows.append([f"{name}: {value}" for name, value in facts(document, words)])
        width, low = _WIDTH / len(rows), top
        for column, texts in enumerate(rows):
            self.pdf.set_xy(_MARGIN + column * width, top)
            is_party = column < len(rows) - 1
            for place, text in enumerate(texts):
                style = _SMALL if is_party and place == 0 else _TEXT
                self.write([text], width - 4, style)
            low = max(low, self.pdf.y)
        self.pdf.set_xy(_MARGIN, low + 6)

    def table_head(self) -> None:
        """The names of the columns, and a line under them."""
        names = ["line", "description", "quantity", "price", "tax"]
        texts = [self.words[name] for name in names] + [f"{self.words['amount']} {self.document.currency}"]
        texts[0] = ""
        self._row(texts, _STRONG, [])
        self.pdf.line(_MARGIN, self.pdf.y, _MARGIN + _WIDTH, self.pdf.y)
        self.pdf.set_y(self.pdf.y + 1)

    def line(self, line: Line) -> None:
        """A line of the document with its explanation; a new group has its heading before it."""
        if line.group != self.group and line.group:
            self._room(3 * _STRONG.height)
            self.write([line.group], _WIDTH, _STRONG)
        self.group = line.group
        quantity, price, taxed, amount = cells(line, self.words)
        texts = [str(line.position), line.description, quantity, price, taxed, amount]
        self._row(texts, _TEXT, explained(line, self.words))
        self.pdf.set_y(self.pdf.y + 1)

    def sums(self) -> None:
        """The sums, right below each other, each kept whole."""
        pdf = self.pdf
        self._room(_TEXT.height)
        pdf.line(_MARGIN, pdf.y, _MARGIN + _WIDTH, pdf.y)
        pdf.set_y(pdf.y + 1)
        name_width = _WIDTH - 45
        for name, amount, counts in sums(self.document, self.words):
            style = _STRONG if counts else _TEXT
            wrapped = self._wrapped(name, name_width, style)
            self._columns([(wrapped, name_width, Align.R), ([self.typeface.drawable(amount)], 45, Align.R)], style)

    def foot(self) -> None:
        """Why there is no tax, how to pay, notes."""
        self.pdf.ln(6)
        for text in footnotes(self.document):
            for row in self._wrapped(text, _WIDTH, _TEXT):
                self._room(_TEXT.height)
                self.write([row], _WIDTH, _TEXT, wrap=False)

    def write(self, texts: Iterable[str], width: Any, style: Style, *, wrap: bool = True) -> None:
        """Rows of text below each other from here, left-aligned."""
        left = self.pdf.x
        for text in texts:
            for row in self._wrapped(text, width, style) if wrap else [text]:
                self._cell(row, width, style, Align.L)
                self.pdf.set_xy(left, self.pdf.y + style.height)

    def _row(self, texts: list[str], style: Style, explanation: list[str]) -> None:
        aligned = [Align.R, Align.L, Align.R, Align.R, Align.R, Align.R]
        parts = [
            (self._wrapped(text, width, style) if align == Align.L else self._split(text, width, style), width, align)
            for text, width, align in zip(texts, _WIDTHS, aligned, strict=True)
        ]
        self._columns(parts, style)
        for text in explanation:
            for row in self._wrapped(text, _WIDTHS[1], _SMALL):
                self._room(_SMALL.height)
                self.pdf.set_x(_MARGIN + _WIDTHS[0])
                self._cell(row, _WIDTHS[1], _SMALL, Align.L)
                self.pdf.set_xy(_MARGIN, self.pdf.y + _SMALL.height)

    def _columns(self, parts: list[tuple[list[str], Any, Align]], style: Style) -> None:
        """Columns of rows beside each other, row by row, so that a page may end between two rows."""
        for place in range(max(len(rows) for rows, _, _ in parts)):
            self._room(style.height)
            self.pdf.set_x(_MARGIN)
            for rows, width, align in parts:
                self._cell(rows[place] if place < len(rows) else "", width, style, align)
            self.pdf.set_xy(_MARGIN, self.pdf.y + style.height)

    def _cell(self, text: str, width: Any, style: Style, align: Align) -> None:
        """A text in a row, set smaller where it does not fit: a number is never broken, nor are digits left out."""
        self._set(style)
        room, needed = width - 2 * self.pdf.c_margin, self.pdf.get_string_width(text)
        if needed > room:
            self.pdf.set_font_size(style.size * room / needed)
        self.pdf.cell(width, style.height, text, align=align)

    def _wrapped(self, text: str, width: Any, style: Style) -> list[str]:
        """The text in rows that fit, broken between words where there are any."""
        self._set(style)
        text = self.typeface.drawable(text)
        if self.pdf.get_string_width(text) <= width - 2 * self.pdf.c_margin:
            return [text]
        rows: Any = self.pdf.multi_cell(
            width, style.height, text, align=Align.L, dry_run=True, output=MethodReturnValue.LINES
        )
        return list(rows)

    def _split(self, text: str, width: Any, style: Style) -> list[str]:
        """A number and its unit in one row, or, where they do not fit, in two."""
        self._set(style)
        text = self.typeface.drawable(text)
        fits = self.pdf.get_string_width(text) <= width - 2 * self.pdf.c_margin
        return [text] if fits else text.split(" ", 1)

    def _set(self, style: Style) -> None:
        self.pdf.set_font("text", "B" if style.bold else "", style.size)
        self.pdf.set_text_color(_GREY if style.grey else 0)
        self.pdf.current_font_is_set_on_page = False  # a text in the third font leaves fpdf2 with a wrong idea of it

    def _room(self, height: Any) -> None:
        """A new page where the height does not fit on this one."""
        if self.pdf.y + height > _PAGE[1] - _BOTTOM:
            self._new_page()
            self.table_head()

    def _new_page(self) -> None:
        self.pdf.add_page()
        self.pdf.set_xy(_MARGIN, _PAGE[1] - 12)
        label = f"{self.document.number}   {self.words['page']} {self.pdf.page_no()}"
        self._cell(self.typeface.drawable(label), _WIDTH, _SMALL, Align.R)
        self.pdf.set_xy(_MARGIN, _MARGIN)

    def _fonts(self) -> None:
        """Register the fonts, with the glyphs of everything that may be drawn."""
        text = (
            self.document.model_dump_json() + "".join(self.words.words.values()) + _formatted(self.document, self.words)
        )
        drawable = self.typeface.drawable(text)
        regular, bold, fallback = self.typeface.files_for(drawable)
        for key, style, font in (("text", "", regular), ("textB", "B", bold), ("other", "", fallback)):
            if font:
                self.pdf.fonts[key] = TTFFont(self.pdf, font, key, style)  # type: ignore[arg-type]
        if fallback:
            self.pdf.set_fallback_fonts(["other"], exact_match=False)


def _formatted(document: Document, words: Wording) -> str:
    """What the locale adds to the texts of the document: digits, separators, months, countries."""
    rows = [row for line in document.lines for row in (*cells(line, words), *explained(line, words))]
    rows += [text for row in facts(document, words) for text in row]
    rows += [text for name, amount, _ in sums(document, words) for text in (name, amount)]
    rows += [text for party in (document.seller, document.buyer) if party for text in address(party, words)]
    return "".join(rows)
