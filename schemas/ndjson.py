"""Lines of JSON to a frame, many at once."""

from collections.abc import Mapping
from typing import Any

import polars as pl


def read_lines(lines: pl.Series, schema: Mapping[str, Any]) -> pl.DataFrame:
    """One row a line, with the columns of `schema`; a row of nulls where polars can't read the line.

    A field of another type is null; a number where text is asked for becomes its shortest decimal text. One line that
    is no JSON costs a few halvings of the lines, not the other lines.

    >>> read_lines(pl.Series(['{"id":"a"}', '{"id":']), {"id": pl.String})["id"].to_list()
    ['a', None]
    """
    if lines.is_empty():
        return pl.DataFrame(schema=schema)
    try:
        rows = pl.read_ndjson(lines.str.join("\n").cast(pl.Binary).item(), schema=schema, ignore_errors=True)
        if len(rows) == len(lines):  # a line of white space gives no row
            return rows
    except pl.exceptions.ComputeError:  # a line is no JSON; which one, it does not say
        pass
    if len(lines) == 1:
        return pl.DataFrame({name: [None] for name in schema}, schema=schema)
    middle = len(lines) // 2
    return pl.concat([read_lines(lines[:middle], schema), read_lines(lines[middle:], schema)])


def text_of(raw: pl.Series) -> pl.Series:
    r"""Lines of bytes as lines of text; null where they are not UTF-8.

    >>> text_of(pl.Series([b"good", b"\xff"])).to_list()
    ['good', None]
    """
    try:
        return raw.cast(pl.String)
    except pl.exceptions.ComputeError:  # says which only by failing as a whole
        return pl.Series(raw.name, [_text(line) for line in raw], dtype=pl.String)


def _text(line: bytes | None) -> str | None:
    try:
        return None if line is None else line.decode()
    except UnicodeDecodeError:
        return None
