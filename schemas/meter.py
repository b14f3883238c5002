"""Meters: which events count, what of them, and by which dimensions. Read from the same YAML that OpenMeter reads.

Owns what a legal set of meters is. A path into an event's data is a chain of names (`$.aircraft.seats`); all meters
together must agree on which paths are values and which are objects, so that a batch is decoded in one pass.
"""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.meter_terms import Duration, Filter, Instant, Path

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:_[a-z0-9]+)*$", max_length=64)]
Dimension = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][0-9a-zA-Z_]*$", max_length=64)]


class Aggregation(StrEnum):
    """What a meter does with the values of the events it counts."""

    COUNT = "COUNT"
    SUM = "SUM"
    MIN = "MIN"
    MAX = "MAX"
    AVG = "AVG"
    LATEST = "LATEST"
    UNIQUE_COUNT = "UNIQUE_COUNT"


class Meter(BaseModel):
    """One meter: events of `event_type`, aggregated over `value_property`, split by the dimensions of `group_by`.

    It wants those that happened at `event_from` or later and pass every one of its `filters`. Of these it counts the
    ones whose time lies at most `event_age_max` before, and `event_ahead_max` behind, the time the log took them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)

    slug: Slug
    name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=1024)
    metadata: dict[str, str] = Field(default_factory=dict)
    event_type: str = Field(min_length=1, max_length=512)
    aggregation: Aggregation
    value_property: Path | None = None
    group_by: dict[Dimension, Path] = Field(default_factory=dict)
    event_from: Instant | None = None
    filters: dict[Path, Filter] = Field(default_factory=dict)
    event_age_max: Duration | None = None
    event_ahead_max: Duration | None = None

    @field_validator("filters", mode="wrap")
    @classmethod
    def _a_path_once(cls, written: Any, validated: ValidatorFunctionWrapHandler) -> Any:
        filters = validated(written)
        if len(filters) < len(written):
            raise ValueError("allowed: a path once, in one way of writing it")
        return filters

    @model_validator(mode="after")
    def _value_fits_the_aggregation(self) -> Self:
        if self.aggregation is Aggregation.COUNT and self.value_property is not None:
            raise ValueError("allowed: a COUNT meter counts events and has no valueProperty")
        if self.aggregation is not Aggregation.COUNT and self.value_property is None:
            raise ValueError(f"allowed: {self.aggregation} needs a valueProperty such as $.bytes")
        return self

    @property
    def numeric(self) -> bool:
        """Whether the meter's value must be a number."""
        return self.aggregation not in {Aggregation.COUNT, Aggregation.UNIQUE_COUNT}

    @property
    def paths(self) -> frozenset[str]:
        """Every path into an event's data that this meter reads."""
        values = {self.value_property} if self.value_property else set()
        return frozenset(self.group_by.values()) | frozenset(self.filters) | values

    def written(self) -> dict[str, Any]:
        """The definition as a file has it, without what is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class MeterTimes(NamedTuple):
    """When a meter first was in force, since when it is defined as it is, and since when it is in force no more."""

    created_at: datetime
    updated_at: datetime
    withdrawn_at: datetime | None = None


def parse_meters(text: str, file: str) -> tuple[Meter, ...]:
    """The meters of a YAML file, sorted by slug. Raises one ConfigurationError that lists all faults.

    >>> parse_meters("meters: [{slug: calls, eventType: call, aggregation: COUNT}]", "meters.yaml")[0].slug
    'calls'
    """
    parsed = parse_yaml(text, file)
    listed = parsed.get("meters")
    faults = [
        Fault(file, key, repr(value), "allowed: the key meters") for key, value in parsed.items() if key != "meters"
    ]
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError(
            [*faults, Fault(file, "meters", repr(listed), "allowed: a list of at least one meter")]
        )
    meters: list[Meter] = []
    for position, definition in enumerate(listed):
        try:
            meters.append(Meter.model_validate(definition))
        except ValidationError as error:
            faults += faults_of(error, file, f"meters[{position}].")
    faults += _set_faults(_slugs(listed), meters, file)
    if faults:
        raise ConfigurationError(faults)
    return _sorted(meters)


def parse_meter(definition: Any, source: str) -> Meter:
    """One meter, from a mapping such as a file lists. Raises ConfigurationError with all of its faults."""
    try:
        return Meter.model_validate(definition)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, source)) from error


def meter_set(meters: Iterable[Meter], source: str) -> tuple[Meter, ...]:
    """Meters as a legal set, sorted by slug. Raises ConfigurationError where they do not go together."""
    together = list(meters)
    if faults := _set_faults([meter.slug for meter in together], together, source):
        raise ConfigurationError(faults)
    return _sorted(together)


DESCRIBING = frozenset({"name", "description", "metadata"})
"""What of a meter in force may change: it says what the meter is, and decides nothing."""


def changed_meters(before: tuple[Meter, ...], after: tuple[Meter, ...], file: str) -> list[Fault]:
    """Faults for meters that keep their slug but count something else: their old and new rollups would be mixed.

    All but DESCRIBING counts: what is aggregated, which events are wanted, and which are too old or too far ahead.
    """
    known = {meter.slug: meter for meter in before}
    fixed = [name for name in Meter.model_fields if name not in DESCRIBING]
    return [
        Fault(file, f"meters.{meter.slug}.{to_camel(name)}", _shown(meter, name),
              f"allowed: {_shown(known[meter.slug], name)}, as already counted; give a new meter its own slug")
        for meter in after if meter.slug in known
        for name in fixed if getattr(meter, name) != getattr(known[meter.slug], name)
    ]  # fmt: skip


def _shown(meter: Meter, name: str) -> str:
    return repr(meter.written().get(to_camel(name)))


def _sorted(meters: Iterable[Meter]) -> tuple[Meter, ...]:
    return tuple(sorted(meters, key=lambda meter: meter.slug))


def _set_faults(slugs: Iterable[str], meters: list[Meter], file: str) -> list[Fault]:
    """What is wrong with meters together; `slugs` are also those of meters that are wrong by themselves."""
    twice = [
        Fault(file, "meters", repr(slug), f"allowed: a slug once; this one stands {count} times")
        for slug, count in Counter(slugs).items()
        if count > 1
    ]
    return twice + [Fault(file, "meters", repr(path), why) for path, why in _torn_paths(meters)]


def all_paths(meters: tuple[Meter, ...]) -> tuple[str, ...]:
    """Every path that some meter reads, sorted."""
    return tuple(sorted(set(chain.from_iterable(meter.paths for meter in meters))))


def _slugs(listed: list[Any]) -> list[str]:
    return [str(entry["slug"]) for entry in listed if isinstance(entry, dict) and "slug" in entry]


def _torn_paths(meters: list[Meter]) -> list[tuple[str, str]]:
    paths = all_paths(tuple(meters))
    return [
        (path, f"allowed: a value or an object, not both; {longer} reads inside it")
        for path in paths
        for longer in paths
        if re.match(re.escape(path) + r"\.", longer)
    ]
