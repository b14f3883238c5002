"""The terms of a meter: one form for each, and a message for each that is not allowed."""

import pytest

from schemas.configuration import ConfigurationError
from schemas.log import LogConfig
from schemas.meter import DESCRIBING, Aggregation, Meter, changed_meters, parse_meter, parse_meters

FULL = """
meters:
  - slug: eu_latency
    name: Latency in Europe
    description: What the API needed
    metadata: {team: edge}
    eventType: request
    aggregation: AVG
    valueProperty: "$['timing']['ms']"
    groupBy: {route: $.route}
    eventFrom: 2026-01-01T00:00:00+01:00
    filters: {$.region: [eu, uk, eu], "$['status']": {not_in: ["500"]}}
    eventAgeMax: 35
    eventAheadMax: PT90M
"""
COUNT = {"slug": "calls", "eventType": "call", "aggregation": "COUNT"}
WRITTEN_OTHERWISE = [
    ('"$[\'timing\'][\'ms\']"', "$.timing.ms"), ("[eu, uk, eu]", "{in: [uk, eu]}"), ("eventAgeMax: 35", "event_age_max: P5W"),
    ("2026-01-01T00:00:00+01:00", "2025-12-31T23:00:00Z"), ("PT90M", "PT1H30M"),
]  # fmt: skip


def message(**terms: object) -> str:
    with pytest.raises(ConfigurationError) as error:
        parse_meter({**COUNT, **terms}, "m.yaml")
    return str(error.value)


def test_a_definition_survives_the_log() -> None:
    """What is read back from a version of the configuration is the same meter, with the same digest."""
    config = LogConfig(meters=parse_meters(FULL, "m.yaml"))
    again = LogConfig.model_validate_json(config.canonical())
    assert (again, again.digest) == (config, config.digest)
    (meter,) = config.meters
    assert parse_meter(meter.written(), "m.yaml") == meter
    assert meter.paths == {"$.timing.ms", "$.route", "$.region", "$.status"}


@pytest.mark.parametrize(("written", "otherwise"), WRITTEN_OTHERWISE, ids=lambda text: text[:20])
def test_another_way_of_writing_is_no_change(written: str, otherwise: str) -> None:
    """The same path, list, instant or duration in other words gives the same digest."""
    assert written in FULL
    first, second = (LogConfig(meters=parse_meters(text, "m")) for text in (FULL, FULL.replace(written, otherwise)))
    assert first.digest == second.digest


@pytest.mark.parametrize("path", ["$.a.b", "$['a'].b", '$["a"]["b"]', "$.a['b']"])
def test_a_path_is_a_chain_of_names(path: str) -> None:
    """Dots and brackets may be mixed."""
    assert parse_meter({**COUNT, "aggregation": "MAX", "valueProperty": path}, "m").value_property == "$.a.b"


@pytest.mark.parametrize(
    "path", ["$", "$.", "a.b", "$..b", "$.*", "$.items[0].n", "$.a[?(@.b)]", "$.a-b", "$.a ", "$['a]", "", 7, ["$.a"], "$." + "a" * 256]
)  # fmt: skip
def test_other_paths_are_refused(path: object) -> None:
    """An index, a wildcard or a condition: the message says where it stands and what is allowed."""
    text = message(aggregation="MAX", valueProperty=path)
    assert "m.yaml: valueProperty: " in text
    assert "allowed: names after $, as in $.a.b or $['a']['b']; no array index, wildcard or condition is read" in text


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"filters": {"$.r": [200]}}, "filters.$.r: [200]: allowed: texts; a number is compared as it is written, so put it in quotes"),
        ({"filters": {"$.r": []}}, "filters.$.r: []: allowed: a list of texts, or an object with the lists `in` and `not_in`"),
        ({"filters": {"$.r": {"like": ["a"]}}}, "filters.$.r.like: ['a']"), ({"filters": {"$.r": "a"}}, "filters.$.r: 'a'"),
        ({"filters": {"$.r": ["a"], "$['r']": ["b"]}}, "allowed: a path once, in one way of writing it"),
        ({"filters": {"r": ["a"]}}, "allowed: names after $"),
        ({"eventAgeMax": "P1M"}, "eventAgeMax: 'P1M': allowed: whole days such as 35, or a duration of ISO 8601 such as PT36H"),
        ({"eventAgeMax": -1}, "eventAgeMax: -1"), ({"eventAgeMax": True}, "eventAgeMax: True"), ({"eventAheadMax": "P"}, "eventAheadMax: 'P'"),
        ({"eventAheadMax": 36501}, "up to 36500 days"), ({"event_ahead_max": "PT"}, "allowed: whole days"),
        ({"eventFrom": "5"}, "eventFrom: '5': allowed: an RFC 3339 instant"), ({"eventFrom": "0001-01-01T00:00:00+14:00"}, "the years 1 to 9999"),
        ({"eventFrom": 5}, "eventFrom: 5: allowed: an RFC 3339 instant"), ({"eventFrom": "2026-01-01T00:00:00"}, "timezone"),
        ({"metadata": {"a": 1}}, "metadata.a: 1"), ({"valueProperty": "$.v"}, "a COUNT meter counts events and has no valueProperty"),
        ({"aggregation": "AVG"}, "AVG needs a valueProperty"), ({"aggregation": "LATEST"}, "LATEST needs a valueProperty"),
        ({"windowSize": "HOUR"}, "windowSize: 'HOUR'"),
    ],
)  # fmt: skip
def test_a_message_names_key_value_and_what_is_allowed(terms: dict[str, object], expected: str) -> None:
    """Each term that cannot be read has its own message."""
    assert expected in message(**terms)


CHANGES = {
    "event_type": "other", "aggregation": Aggregation.LATEST, "value_property": "$.other", "group_by": {}, "event_from": None,
    "filters": {}, "event_age_max": None, "event_ahead_max": None, "name": "", "description": "", "metadata": {},
}  # fmt: skip


def test_what_describes_a_meter_may_change_and_nothing_else() -> None:
    """Every term but the slug is one or the other; a new term would have to be decided on here."""
    assert set(CHANGES) == set(Meter.model_fields) - {"slug"}
    before = parse_meters(FULL, "m")
    for name, value in CHANGES.items():
        changed = changed_meters(before, (before[0].model_copy(update={name: value}),), "m")
        assert bool(changed) == (name not in DESCRIBING), name
        assert all("give a new meter its own slug" in str(fault) for fault in changed)
