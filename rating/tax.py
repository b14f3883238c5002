"""Taxes of invoices: what each rate of each line is, rounded where the policy says. Core.

Decides what is rounded: each line, the sum of each rate, or the whole invoice. Owns the invariant that taxes of lines
add up to those of rates, and these to the invoice's: what is rounded over several lines is shared out to them. The sum
of each rate is the only position that makes a valid electronic invoice (EN 16931: BT-117 is BT-116 times the rate).
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import polars as pl

from rating.allocation import filled
from rating.exact import divided
from schemas.invoice import Columns
from schemas.plan import Rounding, TaxMode, TaxPosition, TaxRule

RATE = pl.Decimal(13, 10)
SCALE = 10**18
"""Rates are whole numbers of 10^-18: exact, but for a compound rate over more than 18 decimals."""
BASES_MAX = 10**20  # minor units of all lines together: their products with rates fit 128 bits

TAXED: Columns = {"net_minor": pl.Int64, "tax_minor": pl.Int64, "gross_minor": pl.Int64}
"""Columns of a frame of lines with their taxes, in the order of the lines: net + tax = gross."""

TAXES: Columns = {
    "line": pl.UInt32,
    "name": pl.String,
    "rate_percent": RATE,
    "tax_minor": pl.Int64,
}
"""Columns of the taxes of lines: one row a line and rate, sorted by line, rates in the order of the rule."""

_ONE = pl.lit(SCALE, pl.Int128)
_GROUPS = {
    TaxMode.EXCLUSIVE: {
        TaxPosition.LINE: ["line", "key"],
        TaxPosition.RATE_GROUP: ["invoice", "key"],
        TaxPosition.INVOICE: ["invoice"],
    },
    TaxMode.INCLUSIVE: {
        TaxPosition.LINE: ["line"],
        TaxPosition.RATE_GROUP: ["invoice", "rule"],
        TaxPosition.INVOICE: ["invoice"],
    },
}
"""What is rounded at once. Several rates in a price are rounded together, because its net amount is rounded once."""


class Taxed(NamedTuple):
    """What taxing lines gives."""

    lines: pl.DataFrame
    """Columns TAXED, one row a line."""
    taxes: pl.DataFrame
    """Columns TAXES."""
    totals: pl.DataFrame
    """Columns invoice, mode, name, rate_percent, base_minor and tax_minor: one row an invoice and rate, in the order
    in which they first appear. The base is what the rate is on, without the tax that is in it."""


def taxed(
    lines: pl.DataFrame,
    rules: Sequence[TaxRule],
    position: TaxPosition = TaxPosition.RATE_GROUP,
    rounding: Rounding = Rounding.HALF_UP,
) -> Taxed:
    """The taxes of lines: columns invoice, tax_rule (place in the list of rules; null without tax), tax_base_minor.

    Rates of one name and percentage are one rate of an invoice, whichever rules they are of; but a compound rate, and
    rates that are in the prices, are their rule's own.

        99.99 at 8.875, 2.125 and 0.5 percent, on top:  8.87 + 2.12 + 0.50
        100.00 with 21 percent in it:                   82.64 + 17.36

    Raises OverflowError where the lines together have more than 20 digits of minor units.
    """
    most = lines.select(pl.col("tax_base_minor").abs().max()).item() or 0
    if most * len(lines) >= BASES_MAX:
        raise OverflowError(f"tax bases may add up to more than 20 digits: {len(lines)} of up to {most}")
    rates = rates_of(rules)
    pairs = lines.with_row_index("line").select("line", "invoice", "tax_rule", base="tax_base_minor")
    pairs = pairs.join(rates, on="tax_rule", how="inner", maintain_order="left_right")
    exclusive = _exclusive(pairs.filter(~pl.col("inclusive")), position, rounding)
    inclusive = _inclusive(pairs.filter(pl.col("inclusive")), position, rounding)
    pairs = pl.concat([exclusive, inclusive.select(exclusive.columns)]).sort("line", "number")
    sums = pairs.group_by("line").agg(tax=pl.sum("tax"), inclusive=pl.first("inclusive"))
    told = lines.select(base="tax_base_minor").with_row_index("line")
    told = told.join(sums, on="line", how="left", maintain_order="left").with_columns(pl.col("tax").fill_null(0))
    net = pl.col("base") - pl.when("inclusive").then(pl.col("tax")).otherwise(0)
    told = told.select(net_minor=net, tax_minor="tax", gross_minor=net + pl.col("tax"))
    mode = pl.when("inclusive").then(pl.lit("inclusive")).otherwise(pl.lit("exclusive"))
    totals = pairs.group_by("invoice", "key", maintain_order=True).agg(
        mode.first().alias("mode"), pl.first("name", "rate_percent"), base_minor=pl.sum("on"), tax_minor=pl.sum("tax")
    )
    return Taxed(told, pairs.select("line", "name", "rate_percent", tax_minor="tax"), totals.drop("key"))


def rates_of(rules: Sequence[TaxRule]) -> pl.DataFrame:
    """One row a rule and rate: the rate, what it is of the base with compound rates worked in, and its key."""
    keys: dict[object, int] = {}
    rows = []
    for place, rule in enumerate(rules):
        same = next(number for number, other in enumerate(rules) if other == rule)
        inclusive = rule.mode is TaxMode.INCLUSIVE
        effective: list[Fraction] = []
        for number, rate in enumerate(rule.all_rates):
            share = Fraction(rate.rate_percent) / 100
            effective.append(share * (1 + sum(effective)) if rate.compound else share)
            identity = (same, number) if inclusive or rate.compound else (rate.name, rate.rate_percent)
            key = keys.setdefault(identity, len(keys))
            shares = round(share * SCALE), round(effective[-1] * SCALE)
            rows.append((place, same, number, inclusive, rate.compound, rate.name, rate.rate_percent, key, *shares))
    columns: Columns = {
        "tax_rule": pl.UInt32,
        "rule": pl.UInt32,  # the first of the rules that say the same
        "number": pl.UInt32,
        "inclusive": pl.Boolean,
        "compound": pl.Boolean,
        "name": pl.String,
        "rate_percent": RATE,
        "key": pl.UInt32,
        "share": pl.Int128,
        "effective": pl.Int128,
    }
    rates = pl.DataFrame(rows, schema=columns, orient="row")
    return rates.with_columns(whole=pl.col("effective").sum().over("tax_rule"))


def _exclusive(pairs: pl.DataFrame, position: TaxPosition, rounding: Rounding) -> pl.DataFrame:
    """Taxes on top. A compound rate is on the rounded taxes before it, but where the invoice is rounded as a whole."""
    group, base = _GROUPS[TaxMode.EXCLUSIVE][position], pl.col("base").cast(pl.Int128)
    if position is TaxPosition.INVOICE:
        exact = base * pl.col("effective")
        return _shared_out(pairs.with_columns(exact=exact, on="base"), group, rounding)
    plain = pairs.filter(~pl.col("compound")).with_columns(exact=base * pl.col("share"), on="base")
    done = _shared_out(plain, group, rounding)
    for number in pairs.filter("compound")["number"].unique().sort():
        before = done.filter(pl.col("number") < number).group_by("line").agg(before=pl.sum("tax"))
        own = pairs.filter(pl.col("compound") & (pl.col("number") == number))
        own = own.join(before, on="line", how="left", maintain_order="left")
        own = own.with_columns(on=pl.col("base") + pl.col("before").fill_null(0)).drop("before")
        own = own.with_columns(exact=pl.col("on").cast(pl.Int128) * pl.col("share")).select(plain.columns)
        done = done.vstack(_shared_out(own, group, rounding))
    return done


def _inclusive(pairs: pl.DataFrame, position: TaxPosition, rounding: Rounding) -> pl.DataFrame:
    """Taxes in the prices: the net amount of a group is rounded, and what is left of its gross amount is tax."""
    group = _GROUPS[TaxMode.INCLUSIVE][position]
    of_rule = list(dict.fromkeys([*group, "rule"]))
    gross = pl.col("base").cast(pl.Int128)
    once = pairs.filter(pl.col("number") == 0).group_by(of_rule).agg(gross.sum(), pl.first("whole"))
    size = pl.col("base").abs()
    net = pl.col("base").sign() * _scaled(size * _ONE, _ONE + pl.col("whole"))
    total = pl.col("base").sum() - _rounded(net.sum(), rounding)
    totals = once.group_by(group).agg(total=total)
    exact = gross.sign() * _scaled(gross.abs() * pl.col("effective"), _ONE + pl.col("whole"))
    pairs = pairs.join(totals, on=group, how="left", maintain_order="left").with_columns(exact=exact)
    found = _shared_out(pairs, group, rounding)
    return found.with_columns(on=pl.col("base") - pl.col("tax").sum().over("line"))


def _scaled(number: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """A quotient of whole numbers, in 10^-18."""
    return number // divisor * _ONE + divided(number % divisor * _ONE, divisor)


def _rounded(exact: pl.Expr, rounding: Rounding) -> pl.Expr:
    """A number of 10^-18 as a whole number (Int128): a half away from zero, or to the even neighbour."""
    size = exact.abs()
    found = divided(size, _ONE)
    if rounding is Rounding.HALF_EVEN:
        two = pl.lit(2, pl.Int128)
        odd_half = (size % _ONE * two == _ONE) & (found % two == 1)
        found -= odd_half.cast(pl.Int128)
    return exact.sign() * found


def _shared_out(pairs: pl.DataFrame, group: list[str], rounding: Rounding) -> pl.DataFrame:
    """Column tax: the rounded sum of each group (or its `total`), shared out to its rates, and theirs to their lines.

    A sum below zero is shared out as its opposite would be: a credit of all lines takes back what each was taxed.
    """
    if "total" not in pairs.columns:
        pairs = pairs.with_columns(total=_rounded(pl.col("exact").sum().over(group), rounding))
    pairs = pairs.with_columns(sign=pl.when(pl.col("total") < 0).then(pl.lit(-1)).otherwise(pl.lit(1)))
    pairs = pairs.with_columns(exact=pl.col("exact") * pl.col("sign"), total=pl.col("total") * pl.col("sign"))
    of_rate = list(dict.fromkeys([*group, "key"]))
    exact = pl.col("exact")
    sums = pairs.group_by(of_rate, maintain_order=True).agg(exact.sum(), pl.first("total"))
    sums = sums.with_columns(of_rate=filled(exact // _ONE, exact % _ONE, pl.col("total"), group))
    pairs = pairs.join(sums.drop("exact", "total"), on=of_rate, how="left", maintain_order="left")
    tax = filled(exact // _ONE, exact % _ONE, pl.col("of_rate"), of_rate) * pl.col("sign")
    return pairs.with_columns(tax=tax.cast(pl.Int64)).drop("of_rate", "total", "sign", "exact")
