"""Contracts: one payer for a subject, and digests that do not depend on their order."""

import pytest

from schemas.configuration import ConfigurationError
from schemas.contract import Contracts, contract_faults, parse_contracts
from schemas.price_book import parse_price_book

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


def test_an_unknown_plan_is_found_against_a_book() -> None:
    """A contract on a plan that the price book lacks is a fault that names the customer."""
    book = parse_price_book(
        "{book: b, version: 1, effective_at: 2013-01-01, currency: USD, plans: "
        "[{id: airline, charges: [{id: rent, model: flat, amount: 1}]}]}",
        "book.yaml",
        [],
    )
    contracts = parse_contracts(f"contracts: [{UNITED}, {DELTA}]", "contracts.yaml")
    assert [str(fault) for fault in contract_faults(contracts, book, "contracts.yaml")] == [
        "contracts.yaml: contracts.DL.plan: 'pilot': allowed: a plan of b version 1: airline"
    ]


def test_a_contract_without_a_party_has_the_digest_it_always_had() -> None:
    """What was stored before contracts had parties is still what it says it is; a party is part of the content."""
    plain = "{customer: UA, name: United, subjects: [UA], plan: airline, starts_on: 2013-01-01"
    without = parse_contracts(f"contracts: [{plain}}}]", "contracts.yaml")
    assert without.digest == "c02772303dd88187cbd13f01763387aacac310dd8e0e735c14ceff9b8ec2a7bc"
    with_party = parse_contracts(f"contracts: [{plain}, party: {{country: US}}}}]", "contracts.yaml")
    assert with_party.digest != without.digest
    assert Contracts.from_canonical(with_party.canonical()) == with_party
