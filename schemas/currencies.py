"""A price book's prices by currency, and the book in one of them. On the plain values that a book is read from.

Owns that a price is never converted but by a rate that the book itself gives (a pricing unit's), and never rounded.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal
from typing import Any

from schemas.charge_faults import Found, number
from schemas.charges import MODELS, Cell, Commitment, Discount, PercentageTier, Tier
from schemas.event import number_text
from schemas.exact import WHOLE_DIGITS_MAX, Frozen, exact_decimal
from schemas.plan import Plan

PRICE_DECIMALS = 12
_PARTS: tuple[type[Frozen], ...] = (Plan, Tier, PercentageTier, Discount, Commitment, Cell, *MODELS.values())
PRICE_KEYS = frozenset[str]().union(*(part.price_fields() for part in _PARTS))
"""What a price is called, wherever in a plan."""
_EXACT = Context(prec=80)  # more digits than a price and a rate have together
_DIMENSIONS = frozenset({"filters", "when"})  # their keys are dimensions, which may be called anything


def with_prices(part: Any, price: Callable[[str, Any, str | None], Any], key: str, unit: str | None = None) -> Any:
    """`part` of a plan with each of its prices replaced by `price(its key, as it is written, its pricing unit)`.

    >>> with_prices({"id": "base", "amount": 2, "filters": {"amount": ["x"]}}, lambda key, written, unit: key, "charge")
    {'id': 'base', 'amount': 'charge.amount', 'filters': {'amount': ['x']}}
    """
    if isinstance(part, Mapping):
        named = part.get("priced_in")
        unit = named if isinstance(named, str) else unit
        return {
            name: (
                value if name in _DIMENSIONS
                else price(f"{key}.{name}", value, unit) if name in PRICE_KEYS
                else with_prices(value, price, f"{key}.{name}", unit)
            )
            for name, value in part.items()
        }  # fmt: skip
    if isinstance(part, list | tuple):
        return type(part)(with_prices(each, price, f"{key}[{at}]", unit) for at, each in enumerate(part))
    return part


def currency_faults(book: Mapping[str, Any], currencies: list[str]) -> Iterator[Found]:
    """What has no price in one of these currencies, or one with too many digits, and prices in no currency of the book.

    Takes the book as it was read, because it may have faults of single keys as well.
    """
    known = [book.get("currency"), *_listed(book.get("currencies"))]
    units = _units(book)
    found: list[Found] = []
    allowed = f"allowed: a currency of the book: {', '.join(str(each) for each in known)}"
    for at, unit in enumerate(_listed(book.get("pricing_units"))):
        rates = unit.get("rate") if isinstance(unit, Mapping) else None
        if isinstance(rates, Mapping):
            key = f"pricing_units[{at}].rate"
            found.extend((f"{key}.{each}", rates[each], allowed) for each in rates if each not in known)
            if missing := [each for each in currencies if each not in rates]:
                found.append((key, rates, f"allowed: a rate in {', '.join(missing)} too"))

    def check(key: str, written: Any, unit: str | None) -> None:
        if unit is not None:
            found.extend(_unit_faults(key, written, unit, units.get(unit, {}), currencies))
        elif isinstance(written, Mapping):
            found.extend((f"{key}.{each}", written[each], allowed) for each in written if each not in known)
            if missing := [each for each in currencies if each not in written]:
                found.append((key, written, f"allowed: a price in {', '.join(missing)} too"))
        elif (price := number(written)) and (others := [each for each in currencies if each != known[0]]):
            example = f"{{{known[0]}: {number_text(price)}, ...}}"
            found.append((key, written, f"allowed: a price in {', '.join(others)} too, such as {example}"))

    for at, plan in enumerate(_listed(book.get("plans"))):
        with_prices(plan, check, f"plans[{at}]")
    yield from found


def in_one_currency(book: Mapping[str, Any], currency: str) -> dict[str, Any]:
    """A book without currency faults, with every price a number in the currency.

    Prices in a pricing unit are multiplied by its rate; `priced_in` stays, as a word for the invoice.
    """
    units = _units(book)

    def price(_: str, written: Any, unit: str | None) -> Any:
        if unit is not None:
            return (
                None
                if written is None
                else _EXACT.multiply(exact_decimal(written), exact_decimal(units[unit][currency]))
            )
        return written[currency] if isinstance(written, Mapping) else written

    plans = tuple(with_prices(plan, price, "") for plan in book["plans"])
    others = {name: value for name, value in book.items() if name != "currencies"}
    if "pricing_units" in book:
        kept = ({**unit, "rate": {currency: unit["rate"][currency]}} for unit in book["pricing_units"])
        others["pricing_units"] = tuple(kept)
    return {**others, "currency": currency, "plans": plans}


def _unit_faults(key: str, written: Any, unit: str, rates: Mapping[str, Any], currencies: list[str]) -> Iterator[Found]:
    if isinstance(written, Mapping):
        yield key, written, f"allowed: a number of {unit}, as the charge is priced in them"
    units = number(written)
    for currency in currencies if units else ():
        rate = number(rates.get(currency))
        if rate is None:
            continue  # a missing rate is the unit's fault
        price = _EXACT.multiply(units or Decimal(0), rate)
        if price and (
            len(number_text(price).partition(".")[2]) > PRICE_DECIMALS or price.adjusted() >= WHOLE_DIGITS_MAX
        ):
            digits = f"at most {WHOLE_DIGITS_MAX} digits before the point and {PRICE_DECIMALS} after it"
            yield key, written, f"allowed: a number that in {currency} has {digits}; it is {number_text(price)}"


def _units(book: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rates of each pricing unit."""
    units = [unit for unit in _listed(book.get("pricing_units")) if isinstance(unit, Mapping)]
    rates = {unit["id"]: unit.get("rate") for unit in units if isinstance(unit.get("id"), str)}
    return {unit: rate for unit, rate in rates.items() if isinstance(rate, Mapping)}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
