"""The taxes of one invoice. docs/pricing.md, "Tax"."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from schemas.plan import TaxMode, TaxRate, TaxRule
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import ONE, ZERO, Row, RowTax, Tax, shared_out, to_minor

RateName = tuple[object, ...]


class Cell(NamedTuple):
    """A row and one rate of its rule, with the exact tax that the rate comes to on the row."""

    row: int  # its place among the rows
    number: int  # the rate's place in the rule
    rate: TaxRate
    name: RateName  # what it is one rate of the invoice with
    exactly: Fraction


Taxes = dict[tuple[int, int], int]  # of each row and place of a rate


def taxes_of(rows: Sequence[Row], book: PriceBook) -> list[Tax]:
    """The taxes of an invoice's rows, by mode and rate, in the order in which they come. Sets each row's `taxes`."""
    rules = {at: rule for at, row in enumerate(rows) if (rule := rule_of(row, book)) is not None}
    bases = {at: row.tax_base_minor for at, row in enumerate(rows)}
    position, rounding = book.policies.tax_position, str(book.policies.rounding)
    # each line by itself is as an invoice of one line
    parts = [[at] for at in rules] if position == "line" else [list(rules)]
    taxes: Taxes = {}
    for part in parts:
        on_top = {at: rules[at] for at in part if rules[at].mode is TaxMode.EXCLUSIVE}
        in_price = {at: rules[at] for at in part if rules[at].mode is TaxMode.INCLUSIVE}
        if position == "invoice":
            taxes |= _on_top_together(on_top, bases, rounding) | _in_price(in_price, bases, rounding)
            continue
        taxes |= _on_top_by_rate(on_top, bases, rounding)
        for text in {rule.model_dump_json(): None for rule in in_price.values()}:
            of_rule = {at: rule for at, rule in in_price.items() if rule.model_dump_json() == text}
            taxes |= _in_price(of_rule, bases, rounding)
    for at, rule in rules.items():
        rows[at].taxes = [
            RowTax(rate.name, Fraction(rate.rate_percent), taxes[at, number])
            for number, rate in enumerate(rule.all_rates)
        ]
    return _by_rate([(rows[at], rule) for at, rule in rules.items()])


def rule_of(row: Row, book: PriceBook) -> TaxRule | None:
    """The tax rule of a row: that of its code, else the book's."""
    return book.taxes[row.tax_code] if row.tax_code else book.tax


def _on_top_by_rate(rules: dict[int, TaxRule], bases: dict[int, int], rounding: str) -> Taxes:
    """Each rate of the invoice is rounded over its rows; a compound one is on what was rounded before it."""
    found: Taxes = {}
    places = sorted({number for rule in rules.values() for number, _ in enumerate(rule.all_rates)})
    for compound, numbers in [(False, [places]), (True, [[number] for number in places])]:
        for some in numbers:
            cells = []
            for at, rule in rules.items():
                for number, rate in enumerate(rule.all_rates):
                    if number in some and rate.compound is compound:
                        before = sum(found.get((at, earlier), 0) for earlier in range(number)) if compound else 0
                        cells.append(Cell(at, number, rate, _name(rule, number), (bases[at] + before) * _factor(rate)))
            for name in dict.fromkeys(cell.name for cell in cells):
                own = [cell for cell in cells if cell.name == name]
                found |= _to_rows(to_minor(_sum(own), 0, rounding), own)
    return found


def _on_top_together(rules: dict[int, TaxRule], bases: dict[int, int], rounding: str) -> Taxes:
    """All taxes that come on top, rounded once. Compound rates are on exact taxes."""
    cells = [
        Cell(at, number, rate, _name(rule, number), tax)
        for at, rule in rules.items()
        for number, (rate, tax) in enumerate(_exact_taxes(Fraction(bases[at]), rule))
    ]
    return _to_rates(to_minor(_sum(cells), 0, rounding), cells)


def _in_price(rules: dict[int, TaxRule], bases: dict[int, int], rounding: str) -> Taxes:
    """The net amount of rows is rounded once, and what is between it and the gross amount is tax."""
    cells, net, gross = [], ZERO, 0
    for at, rule in rules.items():
        without_tax = bases[at] / (ONE + sum((tax for _, tax in _exact_taxes(ONE, rule)), ZERO))
        for number, (rate, tax) in enumerate(_exact_taxes(without_tax, rule)):
            cells.append(Cell(at, number, rate, _name(rule, number), tax))
        net, gross = net + without_tax, gross + bases[at]
    return _to_rates(gross - to_minor(net, 0, rounding), cells)


def _to_rates(total: int, cells: Sequence[Cell]) -> Taxes:
    """A total shared out to rates, in the order in which they come; then each rate's tax to its rows."""
    by_name = {name: [cell for cell in cells if cell.name == name] for name in dict.fromkeys(one.name for one in cells)}
    sign = _sign(total, [cell.exactly for cell in cells])
    totals = shared_out(sign * total, [sign * _sum(own) for own in by_name.values()])
    found: Taxes = {}
    for of_rate, own in zip(totals, by_name.values(), strict=True):
        taxes = shared_out(of_rate, [sign * cell.exactly for cell in own])
        found |= {(cell.row, cell.number): sign * tax for cell, tax in zip(own, taxes, strict=True)}
    return found


def _to_rows(total: int, cells: Sequence[Cell]) -> Taxes:
    """A rate's tax shared out to its rows, in their order."""
    sign = _sign(total, [cell.exactly for cell in cells])
    taxes = shared_out(sign * total, [sign * cell.exactly for cell in cells])
    return {(cell.row, cell.number): sign * tax for cell, tax in zip(cells, taxes, strict=True)}


def _sign(total: int, exactly: Sequence[Fraction]) -> int:
    """Of what is shared out: of the total, or where that is 0, of the first exact tax that is not."""
    first = next((number for number in [total, *exactly] if number), 1)
    return -1 if first < 0 else 1


def _name(rule: TaxRule, number: int) -> RateName:
    """Rates on top are one rate where they have one name and percentage; compound ones, and those in prices, by rule."""
    rate = rule.all_rates[number]
    if rule.mode is TaxMode.INCLUSIVE or rate.compound:
        return rule.model_dump_json(), number
    return rate.name, Fraction(rate.rate_percent)


def _exact_taxes(base: Fraction, rule: TaxRule) -> list[tuple[TaxRate, Fraction]]:
    found: list[tuple[TaxRate, Fraction]] = []
    for rate in rule.all_rates:
        before = sum((tax for _, tax in found), ZERO) if rate.compound else ZERO
        found.append((rate, (base + before) * _factor(rate)))
    return found


def _factor(rate: TaxRate) -> Fraction:
    return Fraction(rate.rate_percent) / 100


def _sum(cells: Sequence[Cell]) -> Fraction:
    return sum((cell.exactly for cell in cells), ZERO)


def _by_rate(ruled: Sequence[tuple[Row, TaxRule]]) -> list[Tax]:
    """The base of a rate is without the tax that is in it."""
    totals: dict[tuple[str, str, Fraction], tuple[int, int]] = {}
    for row, rule in ruled:
        base = row.tax_base_minor - (row.tax_minor if rule.mode is TaxMode.INCLUSIVE else 0)
        for name, percent, tax in row.taxes:
            bases, taxes = totals.get((str(rule.mode), name, percent), (0, 0))
            totals[str(rule.mode), name, percent] = (bases + base, taxes + tax)
    return [
        Tax(ruled[0][0].customer, ruled[0][0].billed_at, mode, name, percent, base, tax)
        for (mode, name, percent), (base, tax) in totals.items()
    ]
