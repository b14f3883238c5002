"""Texts and amounts as cells of CSV files that people open in a spreadsheet. Core.

Owns that no cell is a formula: a spreadsheet computes what starts with = + - @ or a tab, and a customer's name may be
`=HYPERLINK(...)`. Such a text gets an apostrophe before it (OWASP, CSV Injection). Amounts are never below zero.
"""

import polars as pl

FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With the full-width forms, which some spreadsheets take for the same."""
_FORMULA = rf"^[{''.join(FORMULA_STARTS).replace('-', '')}-]"
_NO_TEXT = r"[\s\x00-\x1f\x7f-\x9f\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{feff}]+"
"""Spaces and line ends, control characters, and what has no width or turns the direction of a text."""


def plain(text: pl.Expr, length_max: int) -> pl.Expr:
    r"""A text of one line, of at most so many characters, that no spreadsheet computes; null where it is empty.

    >>> pl.select(plain(pl.lit(pl.Series(["=1+1", " @x\n", "a  b", "", "-"])), 9)).to_series().to_list()
    ["'=1+1", "'@x", 'a b', None, "'-"]
    """
    line = text.str.replace_all(_NO_TEXT, " ").str.strip_chars(" ")
    return line.str.replace(_FORMULA, "'${0}").str.head(length_max).replace("", None)


def amount(minor: pl.Expr, minor_units: pl.Expr) -> pl.Expr:
    """Minor units, zero or more, in units of the currency; null stays null. In whole numbers from end to end.

    >>> shown = amount(pl.lit(pl.Series([1205, 7, 1250])), pl.lit(pl.Series([2, 0, 3])))
    >>> pl.select(shown).to_series().to_list()
    ['12.05', '7.00', '1.25']
    """
    # two decimals of every currency, as the programs that read this want them; more only where these are not 0
    thousandths_up = pl.lit(10, pl.Int64).pow(4 - minor_units)
    parts = minor % pl.lit(10, pl.Int64).pow(minor_units) * thousandths_up  # in ten-thousandths
    whole = minor // pl.lit(10, pl.Int64).pow(minor_units)
    decimals = parts.cast(pl.String).str.zfill(4)
    short = decimals.str.head(2) + decimals.str.tail(2).str.strip_chars_end("0")
    return pl.when(minor.is_not_null()).then(whole.cast(pl.String) + "." + short)
