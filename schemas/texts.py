"""A column of texts as the bytes that a database hands out: no text is made an object, and none is copied."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.log import Bytes


class Texts(NamedTuple):
    """Texts with a zero byte between each two: text k ends before `ends[k]`, and the next starts one byte behind."""

    values: Bytes
    ends: npt.NDArray[np.int64]

    def series(self) -> pl.Series:
        """The same as a column of a frame."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends - np.arange(len(self.ends))])
        buffers = pa.py_buffer(starts), pa.py_buffer(np.ascontiguousarray(self.values[self.values != 0]))
        texts = pl.from_arrow(pa.LargeStringArray.from_buffers(len(self.ends), *buffers))
        assert isinstance(texts, pl.Series)
        return texts


def texts_of(values: bytes, count: int) -> Texts:
    r"""So many texts, none of which holds a zero byte, with one between each two.

    >>> texts_of(b"a\0\0bc", 3).series().to_list()
    ['a', '', 'bc']
    """
    array = np.frombuffer(values, np.uint8)
    ends = np.append(np.flatnonzero(array == 0), len(array)).astype(np.int64)
    return Texts(array, ends if count or len(array) else ends[:0])
