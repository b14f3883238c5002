"""The taxes of one invoice. docs/pricing.md, "Tax"."""

from collections.abc import Sequence
from fractions import Fraction

from schemas.plan import TaxMode, TaxRate, TaxRule
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import ONE, ZERO, Row, Tax, shared_out, to_minor

Share = tuple[Row, TaxRule, TaxRate, int, int]  # the row's own base and tax of one rate


def taxes_of(rows: Sequence[Row], book: PriceBook) -> list[Tax]:
    """The taxes of an invoice's rows, by mode and rate, in the order in which they come. Sets each row's `tax_minor`."""
    ruled = [(row, rule) for row in rows if (rule := rule_of(row, book)) is not None]
    position, rounding = book.policies.tax_position, book.policies.rounding
    if position == "line":
        groups = [[one] for one in ruled]
    elif position == "rate_group":
        rules = list({rule.model_dump_json(): None for _, rule in ruled})
        groups = [[one for one in ruled if one[1].model_dump_json() == rule] for rule in rules]
    else:
        groups = [[one for one in ruled if one[1].mode is mode] for mode in TaxMode]
    shares: list[Share] = []
    for group in groups:
        if not group:
            continue
        inclusive = group[0][1].mode is TaxMode.INCLUSIVE
        if inclusive:
            shares += _inclusive(group, rounding)
        elif position == "invoice":
            shares += _whole_invoice(group, rounding)
        else:
            shares += _exclusive(group, rounding)
    return _by_rate(shares)


def rule_of(row: Row, book: PriceBook) -> TaxRule | None:
    """The tax rule of a row: that of its code, else the book's."""
    return book.taxes[row.tax_code] if row.tax_code else book.tax


def _exclusive(group: Sequence[tuple[Row, TaxRule]], rounding: str) -> list[Share]:
    """Rates of one rule over rows: each rounded by itself over them all; a compound one counts what was rounded before."""
    rule = group[0][1]
    taxed = [0 for _ in group]
    shares: list[Share] = []
    for rate in rule.all_rates:
        bases = [row.tax_base_minor + (taxed[at] if rate.compound else 0) for at, (row, _) in enumerate(group)]
        exactly = [base * _factor(rate) for base in bases]
        taxes = shared_out(to_minor(sum(exactly, ZERO), 0, rounding), exactly)
        taxed = [before + tax for before, tax in zip(taxed, taxes, strict=True)]
        shares += [(row, rule, rate, row.tax_base_minor, tax) for (row, _), tax in zip(group, taxes, strict=True)]
    return shares


def _whole_invoice(group: Sequence[tuple[Row, TaxRule]], rounding: str) -> list[Share]:
    """All taxes of an invoice rounded once, shared out to its rows and their rates."""
    cells = [
        (row, rule, rate, tax) for row, rule in group for rate, tax in _exact_taxes(Fraction(row.tax_base_minor), rule)
    ]
    exactly = [tax for *_, tax in cells]
    taxes = shared_out(to_minor(sum(exactly, ZERO), 0, rounding), exactly)
    return [(row, rule, rate, row.tax_base_minor, tax) for (row, rule, rate, _), tax in zip(cells, taxes, strict=True)]


def _inclusive(group: Sequence[tuple[Row, TaxRule]], rounding: str) -> list[Share]:
    """Nets rounded once over rows and shared out; what is between gross and net is shared out to a row's rates."""
    exactly = []
    for row, rule in group:
        over = sum((tax for _, tax in _exact_taxes(ONE, rule)), ONE)
        exactly.append(Fraction(row.tax_base_minor) / over)
    nets = shared_out(to_minor(sum(exactly, ZERO), 0, rounding), exactly)
    shares: list[Share] = []
    for (row, rule), net, exact_net in zip(group, nets, exactly, strict=True):
        tax = row.tax_base_minor - net
        rates = _exact_taxes(exact_net, rule)
        whole = sum((one for _, one in rates), ZERO)
        parts = shared_out(tax, [one * tax / whole if whole else ZERO for _, one in rates])
        shares += [(row, rule, rate, net, part) for (rate, _), part in zip(rates, parts, strict=True)]
    return shares


def _exact_taxes(base: Fraction, rule: TaxRule) -> list[tuple[TaxRate, Fraction]]:
    found: list[tuple[TaxRate, Fraction]] = []
    for rate in rule.all_rates:
        before = sum((tax for _, tax in found), ZERO) if rate.compound else ZERO
        found.append((rate, (base + before) * _factor(rate)))
    return found


def _factor(rate: TaxRate) -> Fraction:
    return Fraction(rate.rate_percent) / 100


def _by_rate(shares: Sequence[Share]) -> list[Tax]:
    totals: dict[tuple[str, str, Fraction], tuple[int, int]] = {}
    for row, rule, rate, base, tax in shares:
        key = (str(rule.mode), rate.name, Fraction(rate.rate_percent))
        bases, taxes = totals.get(key, (0, 0))
        totals[key] = (bases + base, taxes + tax)
        row.tax_minor += tax
    first = shares[0][0] if shares else None
    return [
        Tax(first.customer, first.billed_at, mode, name, percent, base, tax)
        for (mode, name, percent), (base, tax) in totals.items()
        if first
    ]
