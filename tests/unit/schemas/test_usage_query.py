"""What a usage query takes for a whole number."""

from typing import Any

import pytest

from schemas.usage_query import InvalidQueryError, usage_query


@pytest.mark.parametrize("given", [0, 7, "7", "0"])
def test_a_cut_is_a_whole_number(given: Any) -> None:
    """From a body as a number, from a URL as its digits."""
    assert usage_query({"asOf": given}).as_of == int(given)


@pytest.mark.parametrize("given", [True, False, "1_0", " 7", "\u0663", "", "-1", -1, 1 << 32, 1.5, [1], "true"])
def test_nothing_else_is_a_cut(given: Any) -> None:
    """Of all these Python makes a number without being asked, or a number that no cut has."""
    with pytest.raises(InvalidQueryError, match="asOf: "):
        usage_query({"asOf": given})
