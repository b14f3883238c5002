"""Meter files: what is legal, and that one message lists every fault."""

import pytest

from schemas.configuration import ConfigurationError
from schemas.meter import Aggregation, changed_meters, parse_meters

GOOD = """
meters:
  - {slug: miles, eventType: flight, aggregation: SUM, valueProperty: $.distance, groupBy: {origin: $.from}}
  - {slug: flights, eventType: flight, aggregation: COUNT, description: All of them}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        parse_meters(text, "m.yaml")
    return [str(fault) for fault in error.value.faults]


def test_a_file_in_openmeters_shape() -> None:
    """Meters come sorted by slug, so that the order in the file is no change."""
    meters = parse_meters(GOOD, "m.yaml")
    assert [meter.slug for meter in meters] == ["flights", "miles"]
    assert meters[1].aggregation is Aggregation.SUM
    assert meters[1].paths == {"$.distance", "$.from"}


def test_all_faults_are_listed_at_once() -> None:
    """File, key, value and what is allowed, for each of them."""
    text = """
extra: 1
meters:
  - {slug: Bad-Slug, eventType: "", aggregation: MEDIAN, valueProperty: distance, groupBy: {"o r": $.o}, windowSize: HOUR}
  - {slug: twice, eventType: a, aggregation: SUM}
  - {slug: twice, eventType: a, aggregation: COUNT, valueProperty: $.v}
  - {slug: object, eventType: a, aggregation: SUM, valueProperty: $.size}
  - {slug: inside, eventType: a, aggregation: SUM, valueProperty: $.size.bytes}
"""
    listed = "\n".join(faults(text))
    for expected in (
        "m.yaml: extra: 1: allowed: the key meters", "meters[0].slug: 'Bad-Slug'", "meters[0].eventType: ''",
        "meters[0].aggregation: 'MEDIAN'", "meters[0].valueProperty: 'distance'", "meters[0].groupBy.o r",
        "meters[0].windowSize", "SUM needs a valueProperty", "a COUNT meter counts events",
        "'twice': allowed: a slug once; this one stands 2 times", "'$.size': allowed: a value or an object, not both",
    ):  # fmt: skip
        assert expected in listed


@pytest.mark.parametrize(
    "text", ["", "[]", "meters: []", "meters: {a: b}", "{", "a: 1\na: 2", "meters: 2013-99-99 : x"]
)
def test_a_file_that_is_no_list_of_meters(text: str) -> None:
    """Not YAML, a key twice, no mapping, no list: one message, never a traceback."""
    assert faults(text)


def test_a_meter_in_force_keeps_what_it_counts() -> None:
    """Its description may change; another aggregation under the same slug would mix two things."""
    before = parse_meters(GOOD, "m.yaml")
    assert changed_meters(before, parse_meters(GOOD.replace("All of them", "Each"), "m.yaml"), "m.yaml") == []
    changed = changed_meters(
        before, parse_meters(GOOD.replace("SUM", "MAX").replace("$.from", "$.to"), "m.yaml"), "m.yaml"
    )
    assert [fault.key for fault in changed] == ["meters.miles.aggregation", "meters.miles.groupBy"]
