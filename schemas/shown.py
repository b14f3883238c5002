"""Texts of others, as documents show them.

Owns that no text can disturb what stands around it: control characters, overrides of the direction of writing and code
points that are no characters never reach a rendering.
"""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator

REPLACED = "\ufffd"
_DIRECTION = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_NO_TEXT = {"Cc", "Cs", "Co", "Cn"}


def shown(text: str) -> str:
    r"""A text as it may be shown: space for white space, and U+FFFD for what is no text or turns the writing around.

    >>> shown("10\tGB"), shown("a\x1b[2Jb"), shown("\u202e00.001")
    ('10 GB', 'a\ufffd[2Jb', '\ufffd00.001')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    code = ord(character)
    unfit = unicodedata.category(character) in _NO_TEXT or code in _DIRECTION
    return REPLACED if unfit else character


Shown = Annotated[str, AfterValidator(shown)]
"""A text that was made fit to be shown."""
