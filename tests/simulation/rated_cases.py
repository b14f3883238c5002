"""Random cases of the oracle of rating, rated by the rater; and both answers as lists that can be compared."""

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import polars as pl

from rating.books import Books
from rating.rater import Basis, Rated, Rater
from rating.tax import taxed
from schemas.contract import Contract
from schemas.money import QUANTITY
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Answer, Row
from tests.simulation.rating_cases import decimal, usage_of
from tests.strategies.rating import AGGREGATIONS, RatingCase

CARRIED = {"customer": pl.String, "charge": pl.String, "group": pl.String, "cell": pl.Int32, "quantity": QUANTITY}


def rater_of(case: RatingCase, **basis: Any) -> Rater:
    """A rater of a case; `basis` has what is to be other than the case says."""
    said = {"books": Books(case.books), "after": case.after, "through": case.through, "cut": 7, **basis}
    return Rater(Basis(contracts=case.contracts, aggregations=AGGREGATIONS, **said))


def carried_of(case: RatingCase) -> pl.DataFrame:
    """The levels that a case starts with."""
    rows = [(customer, charge, "", 0, decimal(level)) for (customer, charge, _), level in case.carried.items()]
    return pl.DataFrame(rows, schema=CARRIED, orient="row")


def rated(
    case: RatingCase, usage: pl.DataFrame | None = None, contracts: Sequence[Contract] | None = None, **basis: Any
) -> Rated:
    """A case as the rater rates it, or with other usage, some contracts or another basis."""
    usage = usage_of(case.events) if usage is None else usage
    return rater_of(case, **basis).rate(usage, contracts, carried=carried_of(case), prepaid=case.credits)


def key_of(row: Row) -> str:
    """What the rater calls a row of the oracle."""
    if row.kind in {"manual", "sla_credit"}:
        return f"{'line' if row.kind == 'manual' else 'sla'}.{row.charge}"
    group = json.dumps(row.group, separators=(",", ":"), ensure_ascii=False) if row.group else ""
    base = (row.charge or row.level) + group
    return base if row.kind in {"usage", "flat"} else f"{base}.{row.kind}"


def told(result: Rated) -> list[Any]:
    """What charges say, row by row."""
    return [
        (
            row["customer"], row["period_start"], row["period_end"], row["charge"], row["kind"],
            Fraction(row["quantity"]) if row["kind"] == "usage" else None,
            Fraction(row["gross"]) if row["kind"] in {"usage", "flat"} else None,
            Fraction(row["amount"]), row["amount_minor"], row["shared_minor"], row["net_minor"], row["credit_minor"],
            row["tax_base_minor"], row["currency"], row["tax_code"],
        )
        for row in result.charges.iter_rows(named=True)
    ]  # fmt: skip


def expected(answer: Answer) -> list[Any]:
    """The same of the oracle's rows."""
    return [
        (
            row.customer, row.start, row.end, key_of(row), row.kind,
            row.quantity if row.kind == "usage" else None,
            row.gross if row.kind in {"usage", "flat"} else None,
            row.amount, row.amount_minor, -row.shared_minor, row.net_minor, -row.credit_minor,
            row.tax_base_minor, row.currency, row.tax_code,
        )
        for row in answer.rows
    ]  # fmt: skip


def slices_told(result: Rated) -> dict[tuple[Any, ...], list[Any]]:
    """The slices of each charge of usage that sells something, trials apart, sorted."""
    names = result.charges.select("customer", "period_start", "charge", "kind", charge_id="id")
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in (
        result.slices.join(names, on="charge_id").filter(pl.col("label") != "trial", kind="usage").iter_rows(named=True)
    ):
        numbers = [Fraction(row[name]) for name in ("quantity", "unit_price", "flat", "amount")]
        up_to = None if row["up_to"] is None else Fraction(row["up_to"])
        key = (row["customer"], row["period_start"], row["charge"])
        found.setdefault(key, []).append((row["from_at"], row["label"], up_to, *numbers))
    return {key: sorted(slices, key=repr) for key, slices in found.items()}


def slices_expected(answer: Answer) -> dict[tuple[Any, ...], list[Any]]:
    """The same of the oracle, without those that say nothing."""
    found = {}
    for row in answer.rows:
        slices = [
            (each.from_at, each.label, each.up_to, each.quantity, each.unit_price, each.flat, each.amount)
            for each in row.slices
            if row.kind == "usage" and each.label != "trial" and (each.quantity or each.flat or each.amount)
        ]
        if slices:
            found[row.customer, row.start, key_of(row)] = sorted(slices, key=repr)
    return found


def taxes_told(result: Rated, book: PriceBook) -> dict[tuple[Any, ...], int]:
    """The taxes of each bill, by mode."""
    charges, rules = result.charges, {code: rule for code, rule in [(None, book.tax), *book.taxes.items()] if rule}
    numbers = [list(rules).index(code) if code in rules else None for code in charges["tax_code"]]
    keys = ("customer", "period_end")
    bills = charges.select(keys).unique(maintain_order=True).with_row_index("invoice")
    lines = charges.with_columns(tax_rule=pl.Series(numbers, dtype=pl.UInt32))
    lines = lines.join(bills, on=keys, how="left", maintain_order="left")
    totals = taxed(lines, list(rules.values()), book.policies.tax_position, book.policies.rounding).totals
    totals = totals.join(bills, on="invoice").select(*keys, "mode", "tax_minor")
    return _summed(totals.rows())


def taxes_expected(answer: Answer) -> dict[tuple[Any, ...], int]:
    """The same of the oracle."""
    return _summed((tax.customer, tax.billed_at, tax.mode, tax.tax_minor) for tax in answer.taxes)


def _summed(rows: Any) -> dict[tuple[Any, ...], int]:
    found: dict[tuple[Any, ...], int] = {}
    for *key, tax in rows:
        found[tuple(key)] = found.get(tuple(key), 0) + tax
    return {key: tax for key, tax in found.items() if tax}
