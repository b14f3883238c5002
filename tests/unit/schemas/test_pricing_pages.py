"""What docs/pricing.md and docs/pricing-repository.md show is legal."""

import re
from pathlib import Path

import yaml

from schemas.contract import parse_contracts
from schemas.price_book import parse_price_book

DOCS = Path(__file__).parents[3] / "docs"


def shown(begins: str) -> str:
    """The indented block of docs/pricing.md that begins with this line."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", (DOCS / "pricing.md").read_text(), re.MULTILINE)
    (block,) = [each for each in blocks if each.strip().startswith(begins)]
    return re.sub(r"^    ", "", block.strip("\n"), flags=re.MULTILINE)


def test_the_book_that_is_shown_is_legal_in_its_currencies() -> None:
    """Whoever copies it can apply it."""
    book = parse_price_book(shown("book: cloud"), "pricing.md", ["api_calls"])
    assert [book.in_currency(currency).currency for currency in ("USD", "EUR")] == ["USD", "EUR"]


def test_the_contract_that_is_shown_is_legal() -> None:
    """All keys of a contract in one."""
    contract = parse_contracts(shown("contracts:"), "pricing.md").contracts[0]
    assert (contract.customer, len(contract.amendments), len(contract.sla)) == ("acme", 2, 1)


def test_the_workflow_that_is_shown_is_yaml() -> None:
    """It has the steps that the page speaks of."""
    text = re.search(r"```yaml\n(.*?)```", (DOCS / "pricing-repository.md").read_text(), re.DOTALL)
    assert text is not None
    steps = yaml.safe_load(text[1])["jobs"]["prices"]["steps"]
    commands = [word for step in steps for word in re.findall(r"meterline price (\w+)", step.get("run", ""))]
    assert commands == ["validate", "plan", "apply"]
