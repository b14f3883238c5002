"""Taxes on the lines of invoices: rating's arithmetic between two steps of invoicing, which know nothing of each other.

Owns that a line's taxes and its invoice's are written as JSON in one form, which digests cover.
"""

from typing import NamedTuple

import polars as pl

from rating.tax import taxed
from schemas.invoice import TAX_GROUPS, TAXED
from schemas.plan import Policies, TaxRule


class TaxedLines(NamedTuple):
    """Lines with their taxes (columns `schemas.invoice.TAXED`), and the taxes of their documents (TAX_GROUPS)."""

    lines: pl.DataFrame
    groups: pl.DataFrame


def with_taxes(lines: pl.DataFrame, policies: Policies | None = None) -> TaxedLines:
    """The lines (columns `schemas.invoice.DRAFTED`) with their taxes, rounded where the policies say.

    Raises OverflowError where lines come to more than 20 digits.
    """
    policies = policies or Policies()
    texts = lines["tax_rule"].drop_nulls().unique().sort().to_list()
    rules = [TaxRule.model_validate_json(text) for text in texts]
    places = pl.col("tax_rule").replace_strict(texts, list(range(len(texts))), return_dtype=pl.UInt32, default=None)
    asked = lines.select(
        pl.col("document").cast(pl.UInt32).alias("invoice"), places.alias("tax_rule"), tax_base_minor="amount_minor"
    )
    found = taxed(asked, rules, policies.tax_position, policies.rounding)
    modes = pl.DataFrame({"tax_rule": texts, "mode": [rule.mode.value for rule in rules]}, _MODES)
    own = lines.select("tax_rule").join(modes, on="tax_rule", how="left", maintain_order="left")
    line = pl.col("line")
    of_lines = found.taxes.with_columns(mode=own["mode"].gather(found.taxes["line"]))
    texts_of_lines = _listed(of_lines, "line", ("name", "rate_percent", "mode", "tax_minor")).with_columns(
        line.cast(pl.UInt32)
    )
    done = lines.with_row_index("line").join(texts_of_lines, on="line", how="left", maintain_order="left")
    done = done.with_columns(found.lines["net_minor"], found.lines["tax_minor"])
    totals = found.totals.with_columns(document=pl.col("invoice").cast(pl.Int64))
    groups = _listed(totals, "document", ("name", "rate_percent", "mode", "base_minor", "tax_minor"))
    return TaxedLines(
        done.select(pl.col(name).cast(kind) for name, kind in TAXED.items()),
        groups.select(pl.col(name).cast(kind) for name, kind in TAX_GROUPS.items()),
    )


_MODES = {"tax_rule": pl.String, "mode": pl.String}


def _listed(rows: pl.DataFrame, key: str, fields: tuple[str, ...]) -> pl.DataFrame:
    """Column taxes: the rows of each key as a JSON list of objects, rates as the shortest text that is exactly them."""
    rate = pl.col("rate_percent").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    text = pl.struct(rate.alias(name) if name == "rate_percent" else pl.col(name) for name in fields)
    listed = rows.select(key, text=text.struct.json_encode()).group_by(key, maintain_order=True)
    return listed.agg(taxes="[" + pl.col("text").str.join(",") + "]")
