"""Contracts: one payer for a subject, and digests that do not depend on their order."""

from pathlib import Path

import pytest

from schemas.configuration import ConfigurationError
from schemas.contract import Contracts, parse_contracts

UNITED = "{customer: UA, name: United Air Lines, subjects: [UA, UX], plan: airline, starts_on: 2013-01-01}"
DELTA = "{customer: DL, name: Delta, subjects: [DL], plan: pilot, starts_on: 2013-01-01}"


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_contracts(text, "contracts.yaml")
    return [fault.key for fault in caught.value.faults]


def test_the_order_of_contracts_means_nothing() -> None:
    """Contracts in another order are equal and have the same digest."""
    one = parse_contracts(f"contracts: [{UNITED}, {DELTA}]", "one.yaml")
    other = parse_contracts(f"contracts: [{DELTA}, {UNITED.replace('UA, UX', 'UX, UA')}]", "other.yaml")
    assert (one, one.digest) == (other, other.digest)
    assert [contract.customer for contract in one.contracts] == ["DL", "UA"]


def test_contracts_come_back_from_their_canonical_form() -> None:
    """Storing contracts as canonical JSON and reading them gives equal contracts."""
    contracts = parse_contracts(f"contracts: [{UNITED}, {DELTA}]", "contracts.yaml")
    assert Contracts.from_canonical(contracts.canonical()) == contracts


def test_no_contracts_are_legal() -> None:
    """A tenant may have no contract at all, but must say so."""
    assert parse_contracts("contracts: []", "contracts.yaml").contracts == ()
    assert faults("{}") == ["contracts"]


def test_all_faults_are_told_at_once() -> None:
    """A repeated customer and a subject with two payers are found beside other faults."""
    third = "{customer: UA, name: '', subjects: [DL, AA, AA], plan: airline, starts_on: soon}"
    fourth = "{customer: NO, name: Nobody, subjects: [], plan: airline, starts_on: 2013-01-01}"  # NO is a YAML boolean
    assert faults(f"contracts: [{UNITED}, {DELTA}, {third}, {fourth}]") == [
        "contracts[2].name",
        "contracts[2].starts_on",
        "contracts[3].customer",
        "contracts[3].subjects",
        "contracts[2].customer",
        "contracts[2].subjects[0]",
        "contracts[2].subjects[2]",
    ]


FULL = """{customer: acme, name: Acme, subjects: [a], plan: pro, book: cloud, starts_on: 2026-01-15, ends_on: 2027-01-15, currency: EUR,
  time_zone: Europe/Berlin, cycle: {every: month, anchor: anniversary}, anchor_day: 31, trial_days: 30, price_version: 2,
  charges: {calls: {tiers: [{up_to: 10, unit_price: 1}, {up_to: null, unit_price: 0.0003}]}, fee: {tiers: [{up_to: null, rate_percent: 2.0}]}, base: {amount: 40.00}},
  remove: [support], add: [{id: extra, model: flat, amount: 10.00}], discounts: [{id: loyal, percent: 5}], minimum_spend: 500.00,
  commitment: {amount: 6000.00, true_up: true},
  amendments: [{on: 2026-07-01, plan: scale}, {on: 2026-12-01, charges: {base: {amount: 60.00}}}],
  lines: [{id: setup, description: Set-up, amount: -250.00, on: 2026-01-20}],
  sla: [{id: uptime, meter: availability, credits: [{below: 99.9, percent: 10}, {below: 99, percent: 25}], charges: [base]}]}"""


def test_a_contract_with_everything_comes_back_from_its_canonical_form() -> None:
    """Overrides and amendments keep what they mean; how a number was written changes no digest."""
    contracts = parse_contracts(f"contracts: [{FULL}]", "contracts.yaml")
    assert Contracts.from_canonical(contracts.canonical()) == contracts
    same = FULL.replace("0.0003", '"0.00030"').replace("40.00", "40").replace("true_up: true", "overage_factor: 1.0")
    assert parse_contracts(f"contracts: [{same}]", "contracts.yaml").digest == contracts.digest
    assert '"base":{"amount":"40"}' in contracts.canonical()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("ends_on: 2027-01-15", "ends_on: 2026-01-15", "ends_on"),
        ("Europe/Berlin", "Mars/Olympus", "time_zone"),
        ("on: 2026-07-01", "on: 2026-12-01", "amendments[1].on"),
        ("on: 2026-12-01", "on: 2027-01-15", "amendments[1].on"),
        ("on: 2026-01-20", "on: 2026-01-14", "lines[0].on"),
        ("anchor: anniversary", "anchor: calendar", "anchor_day"),
        ("every: month", "every: week", "anchor_day"),
        ("price_version: 2", "price_version: 0", "price_version"),
        ("{up_to: 10, unit_price: 1}", "{up_to: null, unit_price: 1}", "charges.calls.tiers[0].up_to"),
        ("{up_to: 10, unit_price: 1}", "{up_to: 10, unit_price: -1}", "charges.calls.tiers[0].unit_price"),
        ("base: {amount: 40.00}", "base: {amont: 40.00}", "charges.base.amont"),
        ("base: {amount: 40.00}", "base: {model: flat}", "charges.base.model"),
        ("base: {amount: 40.00}", "base: {amount: {USD: 40}}", "charges.base.amount"),
        ("base: {amount: 40.00}", "base: {priced_in: credits}", "charges.base.priced_in"),
        ("base: {amount: 40.00}", "support: {amount: 40.00}", "charges.support"),
        ("base: {amount: 60.00}", "base: {unit: {round: up}}", "amendments[1].charges.base.unit"),
        ("amount: 10.00}]", "amount: {EUR: 10}}]", "add[0].amount"),
        ("amount: 10.00}]", "amount: 10, priced_in: credits}]", "add[0].priced_in"),
        ("{id: loyal, percent: 5}", "{id: loyal, units: 5}", "discounts[0].units"),
        ("{id: loyal, percent: 5}", "{id: loyal, amount: {EUR: 5}}", "discounts[0].amount"),
        ("{id: loyal, percent: 5}", "{id: loyal}", "discounts[0]"),
        ("true_up: true", "per: bucket", "commitment.per"),
        ("minimum_spend: 500.00", "minimum_spend: 500.00, maximum_spend: 400", "maximum_spend"),
        ("below: 99, percent: 25", "below: 99.9, percent: 25", "sla[0].credits[1].below"),
        ("below: 99, percent: 25", "below: 99, percent: 5", "sla[0].credits[1].percent"),
    ],
)  # fmt: skip
def test_one_fault_of_a_contract_is_told_alone(old: str, new: str, key: str) -> None:
    """A single change that makes the contract illegal gives one fault, at its key."""
    assert old in FULL
    assert faults(f"contracts: [{FULL.replace(old, new)}]") == [f"contracts[0].{key}"]


def test_the_examples_keep_their_digest() -> None:
    """Invoices name it."""
    text = (Path(__file__).parents[3] / "examples/flights/contracts.yaml").read_text()
    digest = "cfc104b6130b28a0d8316de6ce03b642e5b8577a14fc4d817be7e5c922a9a62e"
    assert parse_contracts(text, "contracts.yaml").digest == digest


def test_a_contract_without_a_party_has_the_digest_it_always_had() -> None:
    """What was stored before contracts had parties is still what it says it is; a party is part of the content."""
    plain = "{customer: UA, name: United, subjects: [UA], plan: airline, starts_on: 2013-01-01"
    without = parse_contracts(f"contracts: [{plain}}}]", "contracts.yaml")
    assert without.digest == "c02772303dd88187cbd13f01763387aacac310dd8e0e735c14ceff9b8ec2a7bc"
    with_party = parse_contracts(f"contracts: [{plain}, party: {{country: US}}}}]", "contracts.yaml")
    assert with_party.digest != without.digest
    assert Contracts.from_canonical(with_party.canonical()) == with_party
