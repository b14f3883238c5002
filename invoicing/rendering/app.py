"""The fonts of PDF files, from installed packages: which characters they draw, and the glyphs for those of a document.

A shell: fonts are files, and are cut in memory as files. Decides that a file carries only glyphs of the alphabets it
uses: a whole font would be most of the file, and cutting out single glyphs most of the time. What no font has is drawn
as a question mark.
"""

import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pymupdf_fonts
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

_ALWAYS = frozenset({0x00, 0x01, 0x20})  # Latin, punctuation and signs of currencies
_INSTEAD = "?"
_CJK = "noto_cjk_sans_jp_regular"


@dataclass(frozen=True, eq=False)
class InstalledTypeface:
    """The fonts of a PDF file: one for text, one for what stands out, and one for scripts that these two lack."""

    regular: bytes
    bold: bytes
    fallback: bytes | None = None

    @cached_property
    def drawn(self) -> frozenset[int]:
        """The code points that the two fonts have."""
        return _code_points(self.regular) & _code_points(self.bold)

    @cached_property
    def drawn_otherwise(self) -> frozenset[int]:
        """The code points that only the third font has."""
        return _code_points(self.fallback) - self.drawn if self.fallback else frozenset()

    def drawable(self, text: str) -> str:
        """The text with what no font has replaced, and without marks that have no shape."""
        return text if text.isascii() else "".join(map(self._drawable, text))

    def _drawable(self, character: str) -> str:
        if unicodedata.category(character) == "Cf":
            return ""
        code = ord(character)
        return character if code in self.drawn or code in self.drawn_otherwise else _INSTEAD

    def files_for(self, text: str) -> tuple[IO[bytes], IO[bytes], IO[bytes] | None]:
        """The fonts with the glyphs that a drawable text takes; the third only where it takes any of it."""
        used = frozenset(map(ord, text))
        blocks = frozenset(code >> 8 for code in used & self.drawn) | _ALWAYS
        others = used & self.drawn_otherwise
        fallback = _exactly(self, others | {0x20}) if others else None
        regular, bold = _of_blocks(self, blocks)
        return io.BytesIO(regular), io.BytesIO(bold), io.BytesIO(fallback) if fallback else None


@cache
def typeface() -> InstalledTypeface:
    """FiraGO, which has most alphabets, and Noto Sans CJK for Chinese, Japanese and Korean where it is installed."""
    return InstalledTypeface(pymupdf_fonts.myfont("figo"), pymupdf_fonts.myfont("figbo"), _cjk())


def _cjk() -> bytes | None:
    spec = find_spec(_CJK)
    if spec is None or spec.origin is None:
        return None
    (font,) = Path(spec.origin).parent.glob("*.otf")
    return font.read_bytes()


@lru_cache(maxsize=64)
def _of_blocks(typeface: InstalledTypeface, blocks: frozenset[int]) -> tuple[bytes, bytes]:
    wanted = [code for code in typeface.drawn if code >> 8 in blocks]
    return _subset(typeface.regular, wanted), _subset(typeface.bold, wanted)


@lru_cache(maxsize=64)
def _exactly(typeface: InstalledTypeface, codes: frozenset[int]) -> bytes:
    assert typeface.fallback is not None
    return _subset(typeface.fallback, codes)


def _code_points(font: bytes) -> frozenset[int]:
    with TTFont(io.BytesIO(font), lazy=True) as opened:
        return frozenset(opened.getBestCmap())


def _subset(font: bytes, codes: Iterable[int]) -> bytes:
    options = Options()
    options.layout_features = []
    options.hinting = False
    options.notdef_outline = True
    options.name_IDs = ["*"]
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "DSIG"]
    with TTFont(io.BytesIO(font), recalcTimestamp=False, lazy=True) as opened:
        subsetter = Subsetter(options)
        subsetter.populate(unicodes=sorted(codes))
        subsetter.subset(opened)
        out = io.BytesIO()
        opened.save(out)
    return out.getvalue()
