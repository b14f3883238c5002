"""What is wrong with contracts, knowing the price books that they are of. Core.

Owns that what passes here can be rated: whatever a contract names is there at each instant from which its terms change.
What it says of a charge must mean something in at least one of the stretches that it holds in: a plan or a version that
comes later may lack that charge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from rating.books import Books, local_midnight
from rating.terms import alike, amended, change_instants, ends_at, plan_as_of, starts_at, version_as_of
from schemas.charge_faults import Found, charge_faults, commitment_faults, shown
from schemas.charges import Charge
from schemas.configuration import Fault, faults_of
from schemas.contract import Contract, Contracts
from schemas.overrides import Layer, overlaid
from schemas.plan import Anchor
from schemas.price_book import PriceBook
from schemas.price_book_faults import KnownMeters, reference_faults

_NEVER = datetime.max.replace(tzinfo=UTC)


def contract_faults(contracts: Contracts, books: Books, file: str, meters: KnownMeters | None = None) -> list[Fault]:
    """What contracts name that the books, or the meters, lack. Keys name the customer: `contracts.UA.plan`."""
    found: list[Fault] = []
    known: dict[Any, dict[str, tuple[str, str]]] = {}
    for contract in contracts.contracts:
        kind = contract.customer if contract.lines or contract.sla else alike(contract)
        if kind not in known:
            known[kind] = {}
            for key, value, allowed in _Check(contract, books, meters).faults():
                known[kind].setdefault(key, (shown(value), allowed))  # it may come again in each stretch
        prefix = f"contracts.{contract.customer}."
        found += [Fault(file, prefix + key, value, allowed) for key, (value, allowed) in known[kind].items()]
    return found


@dataclass
class _Check:
    contract: Contract
    books: Books
    meters: KnownMeters | None
    charges: set[str] = field(default_factory=set)
    """Every charge that the contract has at some time."""
    lost: dict[str, tuple[str, list[str]] | None] = field(default_factory=dict)
    """Of each key that names a charge: the name and the charges where it first found none; None if it found one."""
    laid: set[str] = field(default_factory=set)
    """The layers that were laid over a plan before."""
    anniversary: bool | None = None

    def faults(self) -> Iterator[Found]:
        """All faults; one may come several times."""
        contract = self.contract
        if unknown := list(self._unknown_versions()):
            yield from unknown
            return
        start, end = starts_at(contract), ends_at(contract) or _NEVER
        for instant in (start, *change_instants(contract, self.books, start, end)):
            version = version_as_of(contract, instant, self.books)
            if version is not None:
                yield from self._stretch(instant, version)
        for key, lost in self.lost.items():
            if lost:
                yield key, lost[0], f"allowed: a charge of the plan: {', '.join(lost[1]) or '(there is none)'}"
        if contract.anchor_day is not None and contract.cycle is None and self.anniversary is False:
            yield "anchor_day", contract.anchor_day, "allowed: only with a cycle whose anchor is anniversary"
        yield from self._beside_charges()

    def _unknown_versions(self) -> Iterator[Found]:
        pins = [("price_version", self.contract.price_version)]
        pins += [
            (f"amendments[{at}].price_version", each.price_version) for at, each in enumerate(self.contract.amendments)
        ]
        try:
            book = self.books.named(self.contract.book)
        except LookupError:
            allowed = f"allowed: a price book that is applied: {', '.join(self.books.names) or '(there is none)'}"
            yield "book", self.contract.book or "missing", allowed
            return
        versions = self.books.versions(book)
        for key, pin in pins:
            if pin is not None and pin not in versions:
                yield key, pin, f"allowed: a version of {book}: {', '.join(str(each) for each in versions)}"

    def _stretch(self, instant: datetime, version: PriceBook) -> Iterator[Found]:
        contract, come = self.contract, amended(self.contract, instant)
        name = plan_as_of(contract, instant)
        if version.plan(name) is None:
            named_by = [f"amendments[{at}]." for at, each in enumerate(come) if each.plan is not None]
            allowed = f"allowed: a plan of {version}: {', '.join(plan.id for plan in version.plans)}"
            yield f"{named_by[-1] if named_by else ''}plan", name, allowed
            return
        currency = contract.currency or version.currency
        offered = [version.currency, *version.currencies]
        if currency not in offered:
            yield "currency", currency, f"allowed: a currency of {version}: {', '.join(offered)}"
            return
        plan = self.books.plan(self.books.in_currency(version, currency), name, ())
        self.anniversary = self.anniversary or plan.cycle.anchor is Anchor.ANNIVERSARY
        charges: Sequence[Charge] = plan.charges
        layers = [("", contract.layer), *((f"amendments[{at}].", each.layer) for at, each in enumerate(come))]
        for place, layer in layers:
            if place not in self.laid:  # a plan or a version that comes later may bring a charge of that name
                yield from _added_again(charges, layer, place)
            self.laid.add(place)
            charges, found = self._laid(charges, layer, place, version)
            yield from found
        self.charges |= {charge.id for charge in charges}

    def _laid(
        self, charges: Sequence[Charge], layer: Layer, place: str, version: PriceBook
    ) -> tuple[Sequence[Charge], list[Found]]:
        """The charges with a layer over them, but for what has faults."""
        found: list[Found] = []
        ids = [charge.id for charge in charges]
        for key, name in _named(layer, place):
            self._note(key, name, ids)
        laid: list[Charge] = []
        for charge in charges:
            keys = layer.charges.get(charge.id)
            key = f"{place}charges.{charge.id}"
            try:
                own = Layer({charge.id: keys} if keys else {}, layer.remove)
                laid += (changed := overlaid((charge,), own))
            except ValidationError as error:
                found += [(fault.key, fault.value, fault.allowed) for fault in faults_of(error, "", f"{key}.")]
                continue
            if keys:
                for each in changed:
                    found += self._rules(each, key, version)
        for at, charge in enumerate(layer.add):
            found += self._rules(charge, f"{place}add[{at}]", version)
        return overlaid(laid, Layer({}, (), layer.add)), found

    def _rules(self, charge: Charge, key: str, version: PriceBook) -> Iterator[Found]:
        written = charge.model_dump(exclude_defaults=True)
        yield from charge_faults(written, key)
        yield from commitment_faults(written, key)
        yield from reference_faults(written, key, _names(version), self.meters)

    def _note(self, key: str, name: str, ids: list[str]) -> None:
        if name in ids:
            self.lost[key] = None
        else:
            self.lost.setdefault(key, (name, ids))

    def _beside_charges(self) -> Iterator[Found]:
        """Discounts, manual lines and service levels."""
        contract = self.contract
        agreed = {"": contract.discounts}
        agreed |= {f"amendments[{at}].": each.discounts or () for at, each in enumerate(contract.amendments)}
        named = [
            (f"{place}discounts[{at}]", each.charges)
            for place, discounts in agreed.items()
            for at, each in enumerate(discounts)
        ]
        named += [(f"sla[{at}]", each.charges) for at, each in enumerate(contract.sla)]
        for key, charges in named:
            for at, name in enumerate(charges if self.charges else ()):
                if name not in self.charges:
                    allowed = f"allowed: a charge of the contract: {', '.join(sorted(self.charges))}"
                    yield f"{key}.charges[{at}]", name, allowed
        for at, line in enumerate(contract.lines):
            version = version_as_of(contract, local_midnight(line.on, contract.zone), self.books)
            if version is not None and line.tax_code is not None and line.tax_code not in version.taxes:
                allowed = f"allowed: a tax code of {version}: {', '.join(version.taxes) or '(there is none)'}"
                yield f"lines[{at}].tax_code", line.tax_code, allowed
        for at, sla in enumerate(contract.sla):
            if self.meters is not None and sla.meter not in self.meters:
                yield f"sla[{at}].meter", sla.meter, f"allowed: a known meter: {', '.join(sorted(self.meters))}"


def _named(layer: Layer, place: str) -> Iterator[tuple[str, str]]:
    """Keys that name a charge which must be there."""
    for name in layer.charges:
        yield f"{place}charges.{name}", name
    for at, name in enumerate(layer.remove):
        yield f"{place}remove[{at}]", name


def _added_again(charges: Sequence[Charge], layer: Layer, place: str) -> Iterator[Found]:
    ids = {charge.id for charge in charges} - set(layer.remove)
    for at, charge in enumerate(layer.add):
        if charge.id in ids:
            yield f"{place}add[{at}].id", charge.id, "allowed: an id that no charge has; charges changes one"


def _names(version: PriceBook) -> dict[str, Any]:
    return {
        "features": [{"id": feature.id} for feature in version.features],
        "pricing_units": [{"id": unit.id} for unit in version.pricing_units],
        "taxes": dict.fromkeys(version.taxes),
    }
