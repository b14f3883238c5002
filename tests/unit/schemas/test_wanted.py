"""Wants of a meter, put together."""

from datetime import UTC, datetime

from schemas.wanted import Want, together

FIRST, SECOND, THIRD = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


def test_wants_of_a_meter_are_one_that_asks_for_all() -> None:
    """All cuts, the finest window, all dimensions, and single events if one asks for them."""
    found = together(
        [
            Want("b", (FIRST, SECOND), window="day", dimensions=("size",)),
            Want("a", (FIRST, SECOND)),
            Want("b", (SECOND, THIRD), window="hour", events=True, dimensions=("region",)),
        ]
    )
    assert found == (
        Want("a", (FIRST, SECOND)),
        Want("b", (FIRST, SECOND, THIRD), window="hour", events=True, dimensions=("region", "size")),
    )
