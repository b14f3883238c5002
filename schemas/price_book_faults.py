"""What can be wrong between the keys of a price book: names that nothing has, missing prices, rules of charges.

Takes the book as it was read, because it may have faults of single keys as well.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from schemas.charge_faults import (
    Found,
    bound_faults,
    charge_faults,
    commitment_faults,
    discount_faults,
    entries,
    repeated,
    texts,
)
from schemas.currencies import currency_faults
from schemas.meter import Aggregation, Meter

KnownMeters = Collection[str] | Mapping[str, Meter] | Mapping[str, Aggregation]
"""Slugs that may be charged for; with their meters, or what these aggregate, more can be checked."""


def book_faults(book: Any, meters: KnownMeters | None) -> Iterator[Found]:
    """All of them. Without `meters` nothing is said of those."""
    if not isinstance(book, Mapping):
        return
    plans = entries(book, "plans")
    for name in ("plans", "features", "pricing_units"):
        yield from repeated(name, entries(book, name))
    ids = [plan["id"] for _, plan in plans if isinstance(plan.get("id"), str)]
    default = book.get("default_plan")
    if isinstance(default, str) and default not in ids:
        yield "default_plan", default, f"allowed: the id of a plan: {', '.join(ids)}"
    yield from _date_faults(book)
    yield from _tax_faults(book)
    yield from _plan_faults(book, plans, meters)
    currencies = [name for _, name in texts(book, "currencies")]
    for at, name in texts(book, "currencies"):
        if name == book.get("currency") or name in currencies[:at]:
            yield f"currencies[{at}]", name, "allowed: a currency once, and not the book's own"
    if isinstance(book.get("currency"), str):
        yield from currency_faults(book, list(dict.fromkeys([book["currency"], *currencies])))


def reference_faults(
    charge: Mapping[str, Any], key: str, book: Mapping[str, Any], meters: KnownMeters | None
) -> Iterator[Found]:
    """Names of a charge that the book or the meters lack."""
    features = [feature.get("id") for _, feature in entries(book, "features")]
    units = [unit.get("id") for _, unit in entries(book, "pricing_units")]
    taxes = book.get("taxes")
    for at, feature in texts(charge, "features"):
        yield from _unknown(f"{key}.features[{at}]", feature, features, "a feature of the book")
    yield from _unknown(f"{key}.priced_in", charge.get("priced_in"), units, "a pricing unit of the book")
    codes = list(taxes) if isinstance(taxes, Mapping) else []
    yield from _unknown(f"{key}.tax_code", charge.get("tax_code"), codes, "a tax code of the book")
    if meters is not None:
        yield from _meter_faults(charge, key, meters)


def _plan_faults(book: Mapping[str, Any], plans: Any, meters: KnownMeters | None) -> Iterator[Found]:
    features = [feature.get("id") for _, feature in entries(book, "features")]
    for at, plan in plans:
        here = f"plans[{at}]"
        charges = entries(plan, "charges")
        yield from repeated(f"{here}.charges", charges)
        ids = [charge.get("id") for _, charge in charges]
        yield from discount_faults(plan, here, of_a_charge=False)
        for place, discount in entries(plan, "discounts"):
            for which, name in texts(discount, "charges"):
                yield from _unknown(f"{here}.discounts[{place}].charges[{which}]", name, ids, "a charge of the plan")
        yield from bound_faults(plan, here)
        yield from commitment_faults(plan, here)
        yield from _entitlement_faults(plan, here, features)
        for place, charge in charges:
            key = f"{here}.charges[{place}]"
            yield from charge_faults(charge, key)
            yield from commitment_faults(charge, key)
            yield from reference_faults(charge, key, book, meters)


def _entitlement_faults(plan: Mapping[str, Any], here: str, features: list[Any]) -> Iterator[Found]:
    seen: set[str] = set()
    named = [(at, entry.get("id")) for at, entry in entries(plan, "features")] + texts(plan, "features")
    for at, name in sorted(named, key=lambda entry: entry[0]):
        yield from _unknown(f"{here}.features[{at}]", name, features, "a feature of the book")
        if isinstance(name, str):
            if name in seen:
                yield f"{here}.features[{at}]", name, "allowed: a feature once"
            seen.add(name)


def _meter_faults(charge: Mapping[str, Any], key: str, meters: KnownMeters) -> Iterator[Found]:
    slug = charge.get("meter")
    if not isinstance(slug, str):
        return
    if slug not in meters:
        yield f"{key}.meter", slug, f"allowed: a known meter: {', '.join(sorted(meters)) or '(there is none)'}"
        return
    known = meters[slug] if isinstance(meters, Mapping) else None
    aggregation = known.aggregation if isinstance(known, Meter) else known
    if charge.get("recurring") is True and aggregation not in {None, "SUM"}:
        yield f"{key}.recurring", True, f"allowed: a meter that is a SUM; {slug} is {aggregation}"
    if not isinstance(known, Meter):
        return
    dimensions = list(known.group_by)
    for name in ("group_by", "dimensions"):
        for at, dimension in texts(charge, name):
            yield from _unknown(f"{key}.{name}[{at}]", dimension, dimensions, f"a dimension of the meter {slug}")
    filters = charge.get("filters")
    for dimension in filters if isinstance(filters, Mapping) else ():
        yield from _unknown(f"{key}.filters.{dimension}", dimension, dimensions, f"a dimension of the meter {slug}")


def _date_faults(book: Mapping[str, Any]) -> Iterator[Found]:
    new, existing = str(book.get("effective_at")), book.get("existing_customers_at")
    if existing is not None and "effective_at" in book and str(existing) < new:
        yield "existing_customers_at", str(existing), f"allowed: {new}, the effective_at, or later"


def _tax_faults(book: Mapping[str, Any]) -> Iterator[Found]:
    taxes = book.get("taxes")
    rules = [("tax", book.get("tax"))]
    rules += [(f"taxes.{code}", rule) for code, rule in (taxes.items() if isinstance(taxes, Mapping) else ())]
    for key, rule in rules:
        if not isinstance(rule, Mapping):
            continue
        single = [name for name in ("name", "rate_percent") if rule.get(name) is not None]
        if rule.get("rates") and single:
            yield f"{key}.{single[0]}", rule[single[0]], "allowed: name and rate_percent, or rates, not both"
        elif not rule.get("rates") and len(single) < 2:
            missing = ({"name", "rate_percent"} - set(single)).pop() if single else "rates"
            yield f"{key}.{missing}", "missing", "allowed: name and rate_percent, or rates"


def _unknown(key: str, name: Any, known: Collection[Any], what: str) -> Iterator[Found]:
    if isinstance(name, str) and name not in known:
        listed = ", ".join(str(each) for each in known) or "(there is none)"
        yield key, name, f"allowed: {what}: {listed}"
