"""What can be wrong between the keys of a charge, wherever it stands: in a plan, or in a contract.

Takes charges as they were read, because they may have faults of single keys as well. A fault is a key, its value and
what is allowed there.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

from schemas.event import number_text
from schemas.exact import exact_decimal

Found = tuple[str, Any, str]
Entries = list[tuple[int, Mapping[str, Any]]]


def charge_faults(charge: Mapping[str, Any], key: str) -> Iterator[Found]:
    """Faults that the charge has by itself. Takes a whole charge, or the keys of an override."""
    yield from _tier_faults(f"{key}.tiers", entries(charge, "tiers"))
    yield from _conversion_faults(f"{key}.unit", charge.get("unit"))
    yield from _bucket_faults(f"{key}.buckets", charge.get("buckets"))
    yield from discount_faults(charge, key, of_a_charge=True)
    yield from _cell_faults(charge, key)
    yield from _level_faults(charge, key)
    yield from bound_faults(charge, key)
    low, high = charge.get("event_minimum"), charge.get("event_maximum")
    yield from _ordered(f"{key}.event_maximum", low, high, "event_minimum")


def commitment_faults(charge: Mapping[str, Any], key: str) -> Iterator[Found]:
    """Commitments by the bucket where no bucket is priced by itself. Takes a whole charge, a plan or a contract."""
    commitment, buckets = charge.get("commitment"), charge.get("buckets")
    each = isinstance(buckets, Mapping) and buckets.get("take") == "each"
    if isinstance(commitment, Mapping) and commitment.get("per") == "bucket" and not each:
        yield f"{key}.commitment.per", "bucket", "allowed: bucket only on a charge with buckets that take each"


def discount_faults(part: Mapping[str, Any], key: str, *, of_a_charge: bool) -> Iterator[Found]:
    """Faults of the discounts of a charge, a plan or a contract."""
    discounts = entries(part, "discounts")
    yield from repeated(f"{key}.discounts", discounts)
    for at, discount in discounts:
        here = f"{key}.discounts[{at}]"
        yield from exactly_one(here, discount, ("percent", "amount", "units"))
        if discount.get("units") is not None and not of_a_charge:
            yield f"{here}.units", discount["units"], "allowed: percent or amount; units come off on a charge alone"
        if discount.get("charges") and of_a_charge:
            yield f"{here}.charges", discount["charges"], "allowed: nothing; a charge's discount is on that charge"


def bound_faults(part: Mapping[str, Any], key: str) -> Iterator[Found]:
    """A maximum spend below the minimum."""
    yield from _ordered(f"{key}.maximum_spend", part.get("minimum_spend"), part.get("maximum_spend"), "minimum_spend")


def exactly_one(key: str, part: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Found]:
    """A fault, unless exactly one of these keys is given."""
    given = [name for name in names if part.get(name) is not None]
    if len(given) != 1:
        yield key, " and ".join(given) or "none of them", f"allowed: exactly one of {', '.join(names)}"


def repeated(key: str, listed: Entries, name: str = "id") -> Iterator[Found]:
    """A fault for each id that stands there a second time."""
    seen: set[str] = set()
    for at, entry in listed:
        own = entry.get(name)
        if isinstance(own, str):
            if own in seen:
                yield f"{key}[{at}].{name}", own, "allowed: an id once; another one before it has it too"
            seen.add(own)


def entries(parent: Any, key: str) -> Entries:
    """The mappings of a list, with their places."""
    listed = parent.get(key) if isinstance(parent, Mapping) else None
    return [
        (at, entry)
        for at, entry in enumerate(listed if isinstance(listed, list | tuple) else [])
        if isinstance(entry, Mapping)
    ]


def texts(parent: Any, key: str) -> list[tuple[int, str]]:
    """The texts of a list, with their places."""
    listed = parent.get(key) if isinstance(parent, Mapping) else None
    return [
        (at, each)
        for at, each in enumerate(listed if isinstance(listed, list | tuple) else [])
        if isinstance(each, str)
    ]


def number(value: Any) -> Decimal | None:
    """The number that was written, if it is one."""
    try:
        return exact_decimal(value)
    except ValueError:
        return None


def shown(value: Any) -> str:
    """A value for a fault."""
    return number_text(value) if isinstance(value, Decimal) else repr(value)


def _tier_faults(key: str, tiers: Entries) -> Iterator[Found]:
    known = [(at, tier["up_to"]) for at, tier in tiers if "up_to" in tier]
    last = max((at for at, _ in tiers), default=0)
    for at, up_to in known:
        if up_to is None and at != last:
            yield f"{key}[{at}].up_to", None, "allowed: a number; only the last tier is without end"
        if up_to is not None and at == last:
            yield f"{key}[{at}].up_to", up_to, "allowed: null; the last tier is without end"
    ends = [(at, end) for at, up_to in known if (end := number(up_to)) is not None]
    for (_, before), (at, end) in pairwise(ends):
        if end <= before:
            yield f"{key}[{at}].up_to", end, f"allowed: more than {number_text(before)}, where the tier before it ends"


def _conversion_faults(key: str, conversion: Any) -> Iterator[Found]:
    if isinstance(conversion, Mapping):
        yield from exactly_one(key, conversion, ("divide_by", "multiply_by"))


def _bucket_faults(key: str, buckets: Any) -> Iterator[Found]:
    if not isinstance(buckets, Mapping) or "take" not in buckets:
        return
    percent, take = buckets.get("percent"), buckets["take"]
    if take == "percentile" and (percent is None or number(percent) == 0):
        yield f"{key}.percent", percent, "allowed: a number above 0 and up to 100, such as 95"
    if take != "percentile" and percent is not None:
        yield f"{key}.percent", percent, "allowed: only with take: percentile"


def _cell_faults(charge: Mapping[str, Any], key: str) -> Iterator[Found]:
    dimensions = [name for _, name in texts(charge, "dimensions")]
    for name in ("dimensions", "group_by"):
        listed = texts(charge, name)
        yield from (
            (f"{key}.{name}[{at}]", each, "allowed: a dimension once")
            for at, each in listed
            if each in {other for _, other in listed[:at]}
        )
    if dimensions:
        for at, cell in entries(charge, "cells"):
            when = cell.get("when")
            for each, values in when.items() if isinstance(when, Mapping) else ():
                if each not in dimensions:
                    allowed = f"allowed: a dimension of the matrix: {', '.join(dimensions)}"
                    yield f"{key}.cells[{at}].when.{each}", values, allowed


def _level_faults(charge: Mapping[str, Any], key: str) -> Iterator[Found]:
    """A matrix of quantities that last: the cells of the next version or plan need not be those of this one."""
    if charge.get("model") == "matrix":
        buckets = charge.get("buckets")
        instead = "quantities that last go with a charge for each cell, or with group_by"
        if charge.get("recurring") is True:
            yield f"{key}.recurring", True, f"allowed: false on a matrix; {instead}"
        if isinstance(buckets, Mapping) and buckets.get("take") == "time_weighted":
            yield f"{key}.buckets.take", "time_weighted", f"allowed: no time_weighted on a matrix; {instead}"


def _ordered(key: str, low: Any, high: Any, than: str) -> Iterator[Found]:
    pairs = [(low, high)]
    if isinstance(low, Mapping) and isinstance(high, Mapping):
        pairs = [(low[each], high[each]) for each in low if each in high]
    for least, most in pairs:
        bottom, top = number(least), number(most)
        if bottom is not None and top is not None and top < bottom:
            yield key, high, f"allowed: at least the {than}, {number_text(bottom)}"
