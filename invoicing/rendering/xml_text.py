"""XML as text: a tree of elements, indented. Core.

Owns that a text stays a text: markup in it is escaped. An element without a text, an attribute or a child is left out,
because an e-invoice may not have empty ones.
"""

from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True)
class Element:
    """An element with a text or with children."""

    name: str
    text: str = ""
    children: tuple["Element", ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    keep: bool = False
    """Whether it stands there even if it is empty."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.keep and not self.text.strip() and all(child.empty for child in self.children)


def leaf(name: str, text: str | None, **attributes: str) -> Element:
    """An element with a text."""
    return Element(name, text or "", attributes=attributes)


def node(name: str, *children: Element, keep: bool = False) -> Element:
    """An element with children."""
    return Element(name, children=children, keep=keep)


def written(root: Element) -> str:
    """The whole file.

    >>> print(written(node("a", leaf("b", "1 < 2", unit="C62"), leaf("c", ""))).partition("?>")[2])
    <BLANKLINE>
    <a>
      <b unit="C62">1 &lt; 2</b>
    </a>
    <BLANKLINE>
    """
    rows = ['<?xml version="1.0" encoding="UTF-8"?>']
    _write(root, "", rows)
    return "\n".join(rows) + "\n"


def _write(element: Element, indent: str, rows: list[str]) -> None:
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in element.attributes.items())
    children = [child for child in element.children if not child.empty]
    if children:
        rows.append(f"{indent}<{element.name}{attributes}>")
        for child in children:
            _write(child, indent + "  ", rows)
        rows.append(f"{indent}</{element.name}>")
    elif element.text:
        rows.append(f"{indent}<{element.name}{attributes}>{escape(element.text)}</{element.name}>")
    else:
        rows.append(f"{indent}<{element.name}{attributes}/>")
