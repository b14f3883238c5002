"""What can be wrong between the keys of contracts, without knowing the price books that they are of.

Takes contracts as they were read, because they may have faults of single keys as well.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from itertools import pairwise
from typing import Any

from schemas.charge_faults import (
    Found,
    bound_faults,
    charge_faults,
    commitment_faults,
    discount_faults,
    entries,
    number,
    repeated,
    texts,
)
from schemas.currencies import with_prices
from schemas.event import number_text
from schemas.exact import plain_date


def contracts_faults(parsed: Any) -> Iterator[Found]:
    """All of them: customers and subjects that stand twice, then those of each contract."""
    yield from _payer_faults(parsed)
    for at, contract in entries(parsed, "contracts"):
        yield from _contract_faults(contract, f"contracts[{at}]")


def _payer_faults(parsed: Any) -> Iterator[Found]:
    owners: dict[str, str] = {}
    payers: dict[str, str] = {}
    for at, contract in entries(parsed, "contracts"):
        here, customer = f"contracts[{at}]", contract.get("customer")
        if isinstance(customer, str) and owners.setdefault(customer, here) != here:
            yield f"{here}.customer", customer, f"allowed: a customer once; {owners[customer]} has it already"
        for place, subject in texts(contract, "subjects"):
            if subject in payers:
                allowed = f"allowed: a subject once; {payers[subject]} has it already"
                yield f"{here}.subjects[{place}]", subject, allowed
            payers.setdefault(subject, here)


def _contract_faults(contract: Mapping[str, Any], here: str) -> Iterator[Found]:
    starts_on, ends_on = _day(contract.get("starts_on")), _day(contract.get("ends_on"))
    if starts_on and ends_on and ends_on <= starts_on:
        yield f"{here}.ends_on", str(ends_on), f"allowed: a day after {starts_on}, when the contract starts"
        ends_on = None
    amendments = entries(contract, "amendments")
    for (_, before), (at, amendment) in pairwise(amendments):
        first, second = _day(before.get("on")), _day(amendment.get("on"))
        if first and second and second <= first:
            yield f"{here}.amendments[{at}].on", str(second), f"allowed: a day after {first}, of the amendment before"
    for name in ("amendments", "lines"):
        for at, entry in entries(contract, name):
            on = _day(entry.get("on"))
            if on and ((starts_on and on < starts_on) or (ends_on and on >= ends_on)):
                stretch = f"from {starts_on}" + (f" and before {ends_on}" if ends_on else " on")
                yield f"{here}.{name}[{at}].on", str(on), f"allowed: a day of the contract, {stretch}"
    yield from _cycle_faults(contract, here)
    yield from _layer_faults(contract, here)
    for at, amendment in amendments:
        yield from _layer_faults(amendment, f"{here}.amendments[{at}]")
    for name in ("lines", "sla"):
        yield from repeated(f"{here}.{name}", entries(contract, name))
    for at, sla in entries(contract, "sla"):
        yield from _sla_faults(f"{here}.sla[{at}].credits", sla)


def _cycle_faults(contract: Mapping[str, Any], here: str) -> Iterator[Found]:
    cycle, anchor_day = contract.get("cycle"), contract.get("anchor_day")
    if anchor_day is not None and isinstance(cycle, Mapping):
        if cycle.get("anchor", "calendar") != "anniversary":
            yield f"{here}.anchor_day", anchor_day, "allowed: only with a cycle whose anchor is anniversary"
        if cycle.get("every") == "week":
            yield f"{here}.anchor_day", anchor_day, "allowed: only with months, quarters and years"


def _layer_faults(part: Mapping[str, Any], here: str) -> Iterator[Found]:
    """Of a contract or an amendment: what it changes of charges, and what is agreed over the plan."""
    yield from _money_faults({name: part[name] for name in ("discounts", "commitment") if name in part}, here)
    yield from discount_faults(part, here, of_a_charge=False)
    yield from commitment_faults(part, here)
    yield from bound_faults(part, here)
    added = entries(part, "add")
    yield from repeated(f"{here}.add", added)
    for at, charge in added:
        key = f"{here}.add[{at}]"
        yield from charge_faults(charge, key)
        yield from commitment_faults(charge, key)
        yield from _money_faults(charge, key)
        if charge.get("priced_in") is not None:
            yield f"{key}.priced_in", charge["priced_in"], "allowed: prices in the contract's currency"
    overrides = part.get("charges")
    removed = [name for _, name in texts(part, "remove")]
    for name, keys in overrides.items() if isinstance(overrides, Mapping) else ():
        key = f"{here}.charges.{name}"
        if name in removed:
            yield key, name, "allowed: a charge that is not removed"
        if isinstance(keys, Mapping):
            yield from charge_faults(keys, key)
            yield from _money_faults(keys, key)
            if keys.get("priced_in") is not None:
                yield f"{key}.priced_in", keys["priced_in"], "allowed: prices in the contract's currency"


def _money_faults(part: Mapping[str, Any], key: str) -> Iterator[Found]:
    """Prices by currency, where a price is a number in the contract's."""
    found: list[Found] = []

    def check(place: str, written: Any, _: str | None) -> None:
        if isinstance(written, Mapping):
            found.append((place, written, "allowed: a number in the contract's currency"))

    with_prices(part, check, key)
    yield from found


def _sla_faults(key: str, sla: Mapping[str, Any]) -> Iterator[Found]:
    steps = [(at, number(step.get("below")), number(step.get("percent"))) for at, step in entries(sla, "credits")]
    known = [(at, below, percent) for at, below, percent in steps if below is not None and percent is not None]
    for (_, before, less), (at, below, percent) in pairwise(known):
        if below >= before:
            yield f"{key}[{at}].below", below, f"allowed: less than {number_text(before)}; bounds descend"
        elif percent < less:
            yield f"{key}[{at}].percent", percent, f"allowed: {number_text(less)} or more; worse service, more credit"


def _day(value: Any) -> date | None:
    try:
        return plain_date(value)
    except ValueError:
        return None
