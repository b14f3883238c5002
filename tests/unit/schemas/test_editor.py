"""The JSON Schemas for editors: as published, and true of what is legal."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from schemas.configuration import parse_yaml
from schemas.editor import contracts_schema, price_book_schema
from tests.unit.schemas.test_contract import FULL
from tests.unit.schemas.test_price_book_faults import BOOK

ROOT = Path(__file__).parents[3]
BOOKS = Draft202012Validator(orjson.loads(price_book_schema()))
CONTRACTS = Draft202012Validator(orjson.loads(contracts_schema()))


def plain(value: Any) -> Any:
    """As an editor reads YAML: numbers are floats."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


def faults(validator: Draft202012Validator, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(plain(parse_yaml(text, "file.yaml")))]


@pytest.mark.parametrize(("name", "made"), [("price-book", price_book_schema()), ("contracts", contracts_schema())])
def test_the_published_schema_is_up_to_date(name: str, made: str) -> None:
    """`meterline price schema [--contracts] > docs/schema/NAME.schema.json` was run after the last change."""
    assert (ROOT / f"docs/schema/{name}.schema.json").read_text() == made
    Draft202012Validator.check_schema(orjson.loads(made))


def test_what_is_legal_has_no_fault_in_an_editor() -> None:
    """The examples, and a book and a contract with everything in it."""
    assert faults(BOOKS, (ROOT / "examples/flights/prices.yaml").read_text()) == []
    assert faults(CONTRACTS, (ROOT / "examples/flights/contracts.yaml").read_text()) == []
    assert faults(BOOKS, BOOK) == []
    assert faults(CONTRACTS, f"contracts: [{FULL}]") == []


def test_a_wrong_key_is_found_in_an_editor() -> None:
    """A misspelt key of a book, of a charge, and of an override."""
    assert any("currencys" in fault for fault in faults(BOOKS, BOOK.replace("currencies:", "currencys:")))
    assert faults(BOOKS, BOOK.replace("multiplier: 1.1", "multiplyer: 1.1"))
    wrong = FULL.replace("base: {amount: 40.00}", "base: {amont: 40.00}")
    assert faults(CONTRACTS, f"contracts: [{wrong}]") == ["Additional properties are not allowed ('amont' was unexpected)"]  # fmt: skip


def test_keys_are_explained() -> None:
    """What stands in a docstring is what an editor shows."""
    described = orjson.loads(price_book_schema())["$defs"]
    assert described["VolumeCharge"]["description"].startswith("The whole quantity is sold at the price")
    assert all("description" in described[name] for name in ("Plan", "Tier", "Buckets", "Commitment", "Policies"))
