"""Lines of JSON to the places of their fields: one pass over the bytes of a whole batch, compiled by Numba.

The scanner finds where in the buffer each wanted value stands; nothing is copied, and no object is made. It takes only
what it fully understands. Anything else makes a line doubtful, for `schemas/event.py` to decide: what is no JSON
object, a wanted name that stands twice, an escape in a name or in a wanted text, any Unicode escape, a wanted number
with an exponent, deep nesting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.log import Bytes

Places = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

DEPTH_MAX = 60
_NONE = -1
_ONE = np.uint64(1)  # places are unsigned while a line is read: a negative one would have to be looked out for
_PLAIN, _ESCAPED, _BROKEN = range(3)  # kinds of texts
_ENDS_TEXT = np.array([byte < 0x20 or byte in b'"\\' for byte in range(256)])
_ESCAPES = np.array([byte in b'"\\/bfnrt' for byte in range(256)])
_WORDS = np.frombuffer(b"truefalsenull", np.uint8)
_VIEW_INLINE_MAX = 12  # bytes: Arrow keeps a text of so many in the view itself

compiled: Any = numba.njit(cache=True, nogil=True)
inlined: Any = numba.njit(cache=True, nogil=True, inline="always")


@dataclass(frozen=True)
class Names:
    """The names to look for, as a tree. A node is a name within an object; node 0 is the event itself.

    The children of node k are the nodes `below[k] + 1` to `below[k + 1]`; the name of node k is
    `text[ends[k - 1]:ends[k]]`; its values are those of `slot[k]`, or of none.
    """

    text: Bytes
    ends: Lengths
    below: Lengths
    slot: Lengths
    slots: int
    data: int
    """The node whose value must be an object or null. The others under the root must be texts or null."""

    @classmethod
    def of(cls, fields: Sequence[str], paths: Sequence[str]) -> "Names":
        """The tree of an event's own fields, the first slots, and of paths such as `$.a.b` within its `data`.

        >>> Names.of(["id"], ["$.a.b"]).slot.tolist()  # of the root, id, data, a and b
        [-1, 0, -1, -1, 1]
        """
        wanted = [(field,) for field in fields] + [("data", *path.removeprefix("$.").split(".")) for path in paths]
        tree: dict[str, Any] = {}
        for key in [*wanted, ("data",)]:
            reduce(lambda node, name: node.setdefault(name, {}), key, tree)
        nodes: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), tree)]
        below = [0]
        for key, inner in nodes:  # it grows meanwhile
            nodes += [((*key, name), further) for name, further in inner.items()]
            below.append(len(nodes) - 1)
        keys = [key for key, _ in nodes]
        names = ["", *(key[-1] for key in keys[1:])]
        return cls(
            text=np.frombuffer("".join(names).encode(), np.uint8),
            ends=np.cumsum([len(name.encode()) for name in names], dtype=np.int32),
            below=np.array(below, np.int32),
            slot=np.array([wanted.index(key) if key in wanted else _NONE for key in keys], np.int32),
            slots=len(wanted),
            data=keys.index(("data",)),
        )


@dataclass(frozen=True)
class Scanned:
    """For each slot and line, where its value stands (a length of -1: it is null or missing); and doubtful lines."""

    buffer: Bytes
    starts: Places
    lengths: Lengths
    doubtful: Mask

    def text(self, slot: int) -> pl.Series:
        """The values of a slot. They are views of the buffer, and no copies."""
        return views(self.buffer, self.starts[slot], self.lengths[slot], pa.string_view())


def scan(buffer: Bytes, starts: Places, ends: Places, names: Names) -> Scanned:
    """Look for the names in lines of UTF-8, each from a start to an end in the buffer, where its line feed stands."""
    assert (buffer[ends] == ord("\n")).all(), "what goes too far meets the line feed"
    shape = (names.slots, len(ends))
    found = Scanned(buffer, np.zeros(shape, np.int64), np.zeros(shape, np.int32), np.zeros(len(ends), np.bool_))
    tree = (names.text, names.ends, names.below, names.slot, names.data)
    _scan(buffer, starts, ends, *tree, found.starts, found.lengths, found.doubtful)
    return found


def views(buffer: Bytes, starts: Places, lengths: Lengths, kind: pa.DataType) -> pl.Series:
    """Stretches of a buffer as a series, without a copy; null where the length is -1.

    `kind` is binary_view, or string_view for what is known to be UTF-8.
    """
    table = np.zeros((len(starts), 4), np.int32)
    _views(buffer, starts, lengths, table.view(np.uint8).reshape(-1, 16), table)
    valid = np.packbits(lengths != _NONE, bitorder="little")
    parts = [pa.py_buffer(each) for each in (valid, table, buffer)]
    return pl.Series(pa.Array.from_buffers(kind, len(starts), parts))


@compiled
def _views(buffer: Bytes, starts: Places, lengths: Lengths, inline: Bytes, table: Lengths) -> None:
    for row in range(len(starts)):
        start, length = starts[row], max(lengths[row], 0)
        table[row, 0] = length
        for place in range(length if length <= _VIEW_INLINE_MAX else 4):
            inline[row, 4 + place] = buffer[start + place]
        if length > _VIEW_INLINE_MAX:
            table[row, 3] = start


@compiled
def _scan(  # noqa: C901, PLR0912, PLR0915  in one piece: to hand on an array costs more than to read its byte
    buffer: Bytes, line_starts: Places, line_ends: Places,
    text: Bytes, ends: Lengths, below: Lengths, slot: Lengths, data: int,
    starts: Places, lengths: Lengths, doubtful: Mask,
) -> None:  # fmt: skip
    """Read each line in steps: a value, what ends with it, and the next name; its last step comes to the line's end."""
    parents, in_object = np.zeros(DEPTH_MAX, np.int64), np.zeros(DEPTH_MAX, np.bool_)
    seen = np.zeros(len(slot), np.int64)
    for row in range(len(line_ends)):
        for each in range(len(lengths)):
            lengths[each, row] = _NONE
        i, end = np.uint64(line_starts[row]), np.uint64(line_ends[row])
        depth, node, sure = 0, 0, False
        while True:
            # a value: that of `node`, or one that nobody asks for
            i = _behind_blanks(buffer, i)
            c = buffer[i]
            own, wanted, within = depth == 1 and node != _NONE, node != _NONE and slot[node] != _NONE, False
            if c == 0x7B or c == 0x5B:  # noqa: PLR1714  { [; a set would be made for each byte
                if depth == DEPTH_MAX or (depth == 0 and c == 0x5B) or (own and (node != data or c == 0x5B)):
                    break
                in_object[depth], parents[depth] = c == 0x7B, node if c == 0x7B else _NONE
                depth, i = depth + 1, _behind_blanks(buffer, i + _ONE)
                within = buffer[i] != c + 2
            elif c == 0x22:  # "
                start = i + _ONE
                i, kind = _text_end(buffer, start)
                if kind == _BROKEN or (kind == _ESCAPED and wanted) or depth == 0 or (own and node == data):
                    break
                if wanted:
                    starts[slot[node], row], lengths[slot[node], row] = start, i - start
                i += _ONE
            else:
                start = i
                i, shortest = _word_end(buffer, start)
                if i == start or depth == 0 or (own and c != 0x6E):  # n
                    break
                if wanted and c != 0x6E:
                    if shortest == start:
                        break
                    starts[slot[node], row], lengths[slot[node], row] = start, shortest - start
            # what ends with it, and a comma
            if not within:
                i = _behind_blanks(buffer, i)
                while depth > 0 and buffer[i] == (0x7D if in_object[depth - 1] else 0x5D):
                    depth, i = depth - 1, _behind_blanks(buffer, i + _ONE)
                if depth == 0 or buffer[i] != 0x2C:
                    sure = depth == 0 and i == end
                    break
                i = _behind_blanks(buffer, i + _ONE)
            # a name
            node = _NONE
            if in_object[depth - 1]:
                start = i + _ONE
                i, kind = _text_end(buffer, start)
                if buffer[start - _ONE] != 0x22 or kind != _PLAIN:
                    break
                if parents[depth - 1] != _NONE:
                    node = _child(buffer, start, i, text, ends, below, parents[depth - 1])
                if node != _NONE:
                    if seen[node] == row + 1:
                        break
                    seen[node] = row + 1
                i = _behind_blanks(buffer, i + _ONE)
                if buffer[i] != 0x3A:  # :
                    break
                i += _ONE
        doubtful[row] = not sure


@inlined
def _behind_blanks(buffer: Bytes, i: np.uint64) -> np.uint64:
    while buffer[i] == 0x20 or buffer[i] == 0x09 or buffer[i] == 0x0D:
        i += _ONE
    return i


@inlined
def _child(
    buffer: Bytes, start: np.uint64, end: np.uint64, text: Bytes, ends: Lengths, below: Lengths, parent: int
) -> int:
    """The node of a name within an object that has a node; _NONE where nobody asks for it."""
    for child in range(below[parent] + 1, below[parent + 1] + 1):
        if _same(buffer, start, end, text, np.uint64(ends[child - 1]), np.uint64(ends[child])):
            return child
    return _NONE


@inlined
def _same(buffer: Bytes, start: np.uint64, end: np.uint64, text: Bytes, first: np.uint64, last: np.uint64) -> bool:
    """Whether two stretches of two buffers are the same."""
    if end - start != last - first:
        return False
    while first < last and buffer[start] == text[first]:
        start, first = start + _ONE, first + _ONE
    return first == last


@inlined
def _text_end(buffer: Bytes, i: np.uint64) -> tuple[np.uint64, int]:
    """Where the text that begins here ends, and of which kind it is."""
    kind = _PLAIN
    while True:
        while not _ENDS_TEXT[buffer[i]]:
            i += _ONE
        if buffer[i] != 0x5C:  # a backslash
            break
        i += _ONE
        if not _ESCAPES[buffer[i]]:
            break
        kind = _ESCAPED
        i += _ONE
    return i, kind if buffer[i] == 0x22 else _BROKEN


@compiled
def _word_end(buffer: Bytes, i: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Where the number, true, false or null that begins here ends, and where its shortest form does.

    The first is the start where it is none of them; the second, where its shortest form is no part of it.
    """
    c, start = buffer[i], i
    if c == 0x2D or 0x30 <= c <= 0x39:
        return _number_end(buffer, start)
    place, stop = (0, 4) if c == 0x74 else (4, 9) if c == 0x66 else (9, 13)  # t f
    while place < stop and buffer[i] == _WORDS[place]:
        i, place = i + _ONE, place + 1
    return (i, i) if place == stop else (start, start)


@compiled
def _number_end(buffer: Bytes, start: np.uint64) -> tuple[np.uint64, np.uint64]:
    whole = start + _ONE if buffer[start] == 0x2D else start
    i = _digits_end(buffer, whole)
    if i == whole or (buffer[whole] == 0x30 and i > whole + _ONE):
        return start, start
    shortest = i
    if buffer[i] == 0x2E:
        fraction = i + _ONE
        i = _digits_end(buffer, fraction)
        if i == fraction:
            return start, start
        shortest = i
        while buffer[shortest - _ONE] == 0x30:
            shortest -= _ONE
        if shortest == fraction:
            shortest -= _ONE
    if buffer[start] == 0x2D and buffer[whole] == 0x30:
        shortest = start  # it may be a zero with a sign
    if buffer[i] == 0x65 or buffer[i] == 0x45:  # e E
        i += _ONE
        if buffer[i] == 0x2B or buffer[i] == 0x2D:
            i += _ONE
        exponent = i
        i = _digits_end(buffer, exponent)
        if i == exponent:
            return start, start
        shortest = start
    return i, shortest


@inlined
def _digits_end(buffer: Bytes, i: np.uint64) -> np.uint64:
    while 0x30 <= buffer[i] <= 0x39:
        i += _ONE
    return i
