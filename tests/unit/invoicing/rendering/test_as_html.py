"""The page: its own markup and nobody else's."""

from html.parser import HTMLParser

from invoicing.rendering.as_html import render_html
from tests.documents.samples import SAMPLES, hostile

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "div", "section", "address", "bdi", "br", "dl",
    "dt", "dd", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "ul", "li", "footer", "p",
}  # fmt: skip
VOID = {"meta", "br"}


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element opens."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        """An element closes."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """A text."""
        self.texts.append(data)


def test_every_page_has_only_our_markup_and_closes_it() -> None:
    """Whatever names and descriptions say, in every locale."""
    for make in SAMPLES.values():
        for locale in ("en_US", "de_DE", "ja_JP", "ar_EG"):
            page = Page(render_html(make(), locale))
            assert page.tags <= TAGS
            assert page.attributes <= {
                "lang",
                "dir",
                "charset",
                "http-equiv",
                "content",
                "name",
                "class",
                "scope",
                "colspan",
                "aria-label",
            }
            assert page.open == []


def test_hostile_texts_are_shown_as_they_are() -> None:
    """Each description and name is one text of the page."""
    document = hostile()
    texts = Page(render_html(document, "en_US")).texts
    assert {line.description for line in document.lines} | {document.buyer.name, *document.notes} <= set(texts)


def test_a_page_says_its_language_and_direction() -> None:
    """A screen reader needs both, and the heads of columns and rows."""
    page = render_html(hostile(), "ar_EG")
    assert '<html lang="ar-EG" dir="rtl">' in page
    assert page.count('scope="col"') == 6
    assert page.count('scope="row"') == 7 + 3
