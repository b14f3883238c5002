"""Whose account stands for which of ours."""

import polars as pl
import pytest

from invoicing.exports.mapping import mapped, parse_mapping, unmapped
from schemas.configuration import ConfigurationError

RULES = """
system: quickbooks
customers: {UA: United Airlines}
accounts:
  - {account: 1100, name: Receivable, entity_is_customer: true}
  - {account: 1100, currency: EUR, name: Receivable - EUR, entity: Sundry}
  - {account: 1100, customer: AA, name: Receivable of AA, class: East}
  - {account: 2000, dimension: VAT 20%, name: "Taxes:VAT"}
"""


def postings(*rows: tuple[int, str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["account", "customer", "currency", "dimension"], orient="row")


def test_the_rule_that_says_most_counts() -> None:
    """A customer before a dimension before a currency; and all of a rule counts, with what it leaves open."""
    found = mapped(
        postings((1100, "UA", "USD", ""), (1100, "B6", "USD", ""), (1100, "UA", "EUR", ""), (1100, "AA", "EUR", "x")),
        parse_mapping(RULES, "mapping.yaml", "quickbooks"),
    )
    assert found.select("name", "class", "entity").rows() == [
        ("Receivable", None, "United Airlines"),
        ("Receivable", None, "B6"),
        ("Receivable - EUR", None, "Sundry"),
        ("Receivable of AA", "East", ""),
    ]


def test_what_has_no_rule_is_listed_once() -> None:
    """An account without any rule by its number; one whose rules leave something out by what that is."""
    found = mapped(
        postings(
            (4010, "UA", "USD", "api"), (4010, "B6", "EUR", "web"), (2000, "UA", "USD", "VAT 20%"),
            (2000, "UA", "USD", "VAT 5%"), (2000, "B6", "USD", "VAT 5%"), (2000, "B6", "EUR", ""),
        ),
        parse_mapping(RULES, "mapping.yaml", "quickbooks"),
    )  # fmt: skip
    assert unmapped(found, parse_mapping(RULES, "mapping.yaml", "quickbooks")) == [
        "4010 usage revenue", "2000 tax payable in EUR", "2000 tax payable in USD of 'VAT 5%'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("{system: netsuite, accounts: [{account: 1101, name: ' x'}, {account: 1100, currency: XXX, name: '=x', z: 1}]}",
         ["accounts[0].account: 1101", "accounts[0].name: ' x'", "accounts[1].currency: 'XXX'", "accounts[1].name: '=x'",
          "accounts[1].z: 1"]),
        ("{system: quickbooks, subsidiary: Inc, accounts: [{account: 1100, name: a}, {account: 1100, name: b, entity: c, entity_is_customer: true}], customers: {UA: '+x'}}",
         ["system: quickbooks", "subsidiary: Inc", "accounts[1]: 1100", "accounts[1].entity: c", "customers.UA: +x"]),
        ("{system: netsuite, accounts: []}", ["accounts: none"]),
        ("{system: netsuite, accounts: [{account: 1100, name: a}], lines_max: 1, number_prefix: 'TOO-LONG', date_format: x}",
         ["number_prefix: 'TOO-LONG'", "date_format: 'x'", "lines_max: 1"]),
    ],
)  # fmt: skip
def test_every_fault_is_told_at_once(text: str, faults: list[str]) -> None:
    """With its key, its value, and what is allowed there."""
    with pytest.raises(ConfigurationError) as caught:
        parse_mapping(text, "mapping.yaml", "netsuite")
    assert [f"{fault.key}: {fault.value}" for fault in caught.value.faults] == faults
    assert all(fault.allowed for fault in caught.value.faults)
