"""Whatever a file of prices or contracts holds, reading it ends with a book, or with faults that name their keys."""

from copy import deepcopy
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.configuration import ConfigurationError, parse_yaml
from schemas.contract import Contracts
from schemas.price_book import PriceBook
from tests.unit.schemas.test_contract import FULL
from tests.unit.schemas.test_price_book_faults import BOOK

JUNK = st.sampled_from([None, True, 0, -1, 7, "", "x", "USD", "2026-13-40", [], [[]], [None], {}, {"x": 1}, [{"id": []}], {"take": []}, "9" * 40])  # fmt: skip


def plain(value: Any) -> Any:
    """As canonical JSON has it: numbers with a point are texts."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Decimal) else value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for step, each in steps for place in places(each, (*path, step))]


PARSED = {
    PriceBook: plain(parse_yaml(BOOK, "book.yaml")),
    Contracts: plain(parse_yaml(f"contracts: [{FULL}]", "contracts.yaml")),
}


@pytest.mark.parametrize("kind", [PriceBook, Contracts])
@settings(max_examples=150)
@given(drawn=st.data())
def test_any_value_at_any_place_is_legal_or_a_fault(
    kind: type[PriceBook] | type[Contracts], drawn: st.DataObject
) -> None:
    """No exception but the one that lists all faults; and what is legal comes back from its canonical form."""
    changed = deepcopy(PARSED[kind])
    for _ in range(drawn.draw(st.integers(1, 3))):
        *way, last = drawn.draw(st.sampled_from(places(changed)))
        parent = changed
        for step in way:
            parent = parent[step]
        parent[last] = deepcopy(drawn.draw(JUNK))
    try:
        read = kind.from_canonical(orjson.dumps(changed).decode())
    except ConfigurationError:
        return
    assert kind.from_canonical(read.canonical()).digest == read.digest
