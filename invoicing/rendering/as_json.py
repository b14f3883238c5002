"""A document as canonical JSON, for programs. Core.

Decides the form: keys sorted, amounts in units of the currency and all decimals as texts, days and instants as ISO
8601 writes them. The same document has the same bytes.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson

from schemas.document import Document
from schemas.money import major

_MINOR = "_minor"


def render_json(document: Document) -> bytes:
    """The document as one JSON object, indented, with a line end."""
    shown = _shown(document.model_dump(), document.minor_units)
    return orjson.dumps(shown, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def plain(value: Decimal) -> str:
    """A decimal as the shortest text that is exactly it.

    >>> plain(Decimal("0.50")), plain(Decimal("1E+3")), plain(Decimal("-0"))
    ('0.5', '1000', '0')
    """
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _shown(value: Any, units: int) -> Any:
    """The value with amounts under their names: `net_minor` of 1205 as `net` of "12.05"."""
    match value:
        case dict():
            return {
                name.removesuffix(_MINOR): f"{major(part, units):f}" if name.endswith(_MINOR) else _shown(part, units)
                for name, part in value.items()
            }
        case tuple() | list():
            return [_shown(part, units) for part in value]
        case Decimal():
            return plain(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case _:
            return value
