"""Rows of PostgreSQL as columns: a range comes as one row of whole columns, and no program looks at each value.

A driver spends microseconds on every row that it hands out. So the database puts the values of a column together:
numbers as an array in its binary form, texts as one text with their lengths beside it. Both become columns of a frame
without being parsed.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
import pyarrow as pa
import sqlalchemy as sa

_ARRAY_HEADER_BYTES = 20
_ELEMENT = np.dtype([("bytes", ">i4"), ("value", ">i8")])


def read_columns(
    connection: sa.Connection, columns: Mapping[str, tuple[str, bool]], rows: str, keys: Mapping[str, Any]
) -> pl.DataFrame:
    """The rows of a FROM clause of ours, in its order, as a frame.

    `columns` says for each name its SQL expression, of type bigint or text and never null, and whether it is text.
    `rows` may hold `%(name)s` for each of its keys.
    """
    wanted = [sql for name, (expression, is_text) in columns.items() for sql in _gathered(expression, is_text=is_text)]
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    query = f"SELECT {', '.join(wanted)} FROM {rows}"  # noqa: S608  names of ours
    with driver.cursor(binary=True) as cursor:
        cursor.execute(cast("Any", query), keys)
        row = cursor.fetchone()
    assert row is not None
    values = iter(row)
    found = {name: _texts(next(values), next(values)) if is_text else _numbers(next(values))
             for name, (_, is_text) in columns.items()}  # fmt: skip
    return pl.DataFrame(found)


def _gathered(expression: str, *, is_text: bool) -> tuple[str, ...]:
    if is_text:
        lengths = f"array_send(array_agg(CAST(octet_length({expression}) AS bigint)))"
        return lengths, f"convert_to(string_agg({expression}, ''), 'UTF8')"
    return (f"array_send(array_agg(CAST({expression} AS bigint)))",)


def _numbers(array: bytes | None) -> pl.Series:
    return pl.Series(_values(array), dtype=pl.Int64)


def _texts(lengths: bytes | None, whole: bytes | None) -> pl.Series:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(_values(lengths))])
    buffers = pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(whole or b"")
    texts = pl.from_arrow(pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers))
    assert isinstance(texts, pl.Series)
    return texts


def _values(array: bytes | None) -> npt.NDArray[np.int64]:
    if array is None:
        return np.zeros(0, np.int64)
    return np.frombuffer(array, _ELEMENT, offset=_ARRAY_HEADER_BYTES)["value"].astype(np.int64)
