"""Unit conversion and running totals."""

from decimal import Decimal
from typing import Any

import pytest

from tests.simulation.pricing_frames import Cut, Use, found, standard


@pytest.mark.parametrize(
    ("unit", "quantities"),
    [
        #                                                    of 1499, 1500, 1501, 2000
        ({"divide_by": 1000, "decimals": 0}, ["1", "2", "2", "2"]),
        ({"divide_by": 1000, "decimals": 0, "round": "up"}, ["2", "2", "2", "2"]),
        ({"divide_by": 1000, "decimals": 0, "round": "down"}, ["1", "1", "1", "2"]),
        ({"divide_by": 1000, "decimals": 2, "round": "down"}, ["1.49", "1.5", "1.5", "2"]),
        ({"divide_by": 1000}, ["1.499", "1.5", "1.501", "2"]),
        ({"divide_by": 3, "round": "down"}, ["499.666666666", "500", "500.333333333", "666.666666666"]),
        ({"divide_by": 3}, ["499.666666667", "500", "500.333333333", "666.666666667"]),
        (
            {"multiply_by": "0.000000001", "decimals": 6, "round": "up"},
            ["0.000002", "0.000002", "0.000002", "0.000002"],
        ),
        ({"multiply_by": 1024, "decimals": 0}, ["1534976", "1536000", "1537024", "2048000"]),
    ],
)
@pytest.mark.parametrize("long_way", [False, True])
def test_conversions(unit: dict[str, Any], quantities: list[str], long_way: bool) -> None:
    """Exact, then rounded once; alike for a segment that is alone and for one that runs on."""
    cuts = [Cut(end=100), Cut(start=100)] if long_way else [Cut()]
    for used, quantity in zip([1499, 1500, 1501, 2000], quantities, strict=True):
        result = found([Use(1, used)], cuts, [standard(unit=unit)])
        assert result.rows["quantity"].to_list() == [Decimal(quantity)]
