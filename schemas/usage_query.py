"""A usage query as OpenMeter's v1 API has it: which meter, when, whose, by which dimensions, and up to which cut.

Owns what a query may ask, and the words in which one is refused. `to` is exclusive, as OpenMeter's SQL has it.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from schemas.meter import Meter
from schemas.text_filter import TextFilter

LISTED_MAX = 100
INSTANT_MIN = datetime(1930, 1, 1, tzinfo=UTC)
INSTANT_MAX = datetime(2190, 1, 1, tzinfo=UTC)
_OF_THE_MACHINE = {"localtime", "posixrules"}
"""Files beside the time zones. What they say depends on the server."""
SUBJECT = "subject"
CUSTOMER = "customer_id"


class WindowSize(StrEnum):
    """How long a row's window is: in the query's time zone, so a day may have 23 or 25 hours."""

    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"


class InvalidQueryError(ValueError):
    """The query cannot be answered, for this reason."""


class UnknownCustomerError(ValueError):
    """The query names a customer that nobody knows."""


def instant(value: Any) -> datetime:
    """An RFC 3339 instant with its offset, in the years that every store and every calendar on the way has.

    >>> instant("2023-11-07T00:00:00+01:00").isoformat()
    '2023-11-07T00:00:00+01:00'
    """
    if isinstance(value, datetime):
        return value
    parsed = datetime.fromisoformat(value) if isinstance(value, str) and value[10:11] in {"T", "t", " "} else None
    if parsed is None or parsed.tzinfo is None:
        raise ValueError(f"{value!r}; allowed: an RFC 3339 instant such as 2023-11-07T00:00:00Z")
    if not INSTANT_MIN <= parsed < INSTANT_MAX:
        raise ValueError(f"{value!r}; allowed: from {INSTANT_MIN:%Y-%m-%d} on and before {INSTANT_MAX:%Y-%m-%d}")
    return parsed


def whole(value: Any) -> Any:
    """A whole number, or the decimal digits of one: not `true`, which Python takes for 1, and not `1_0`.

    >>> whole("12"), whole(12)
    ('12', 12)
    """
    if isinstance(value, bool) or (isinstance(value, str) and not (value.isascii() and value.isdecimal())):
        raise ValueError(f"{value!r}; allowed: a whole number")
    return value


Instant = Annotated[datetime, BeforeValidator(instant)]
Whole = Annotated[int, BeforeValidator(whole)]
Names = Annotated[tuple[str, ...], Field(max_length=LISTED_MAX)]


class UsageQuery(BaseModel):
    """What is asked of a meter. `as_of` is a cut of the log: only usage of the epochs before it counts."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")
    window_size: WindowSize | None = None
    window_time_zone: str = "UTC"
    subject: Names | None = None
    group_by: Names = ()
    filter_group_by: dict[str, Names] = Field(default_factory=dict)
    advanced_meter_group_by_filters: dict[str, TextFilter] = Field(default_factory=dict)
    filter_customer_id: Names = ()
    client_id: str | None = Field(default=None, min_length=1, max_length=36)
    as_of: Whole | None = Field(default=None, ge=0, lt=1 << 32)

    @field_validator("window_time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            found = ZoneInfo(name) if name not in _OF_THE_MACHINE else None
        except (LookupError, ValueError, OSError):
            found = None
        if found is None:
            raise ValueError(f"invalid time zone: unknown time zone {name}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start and self.end and self.start == self.end:
            raise ValueError("from and to cannot be equal")
        if self.start and self.end and self.start > self.end:
            raise ValueError("from must be before to")
        if self.advanced_meter_group_by_filters and self.filter_group_by:
            raise ValueError("advanced meter group by filters and filter group by cannot be used together")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the windows."""
        return ZoneInfo(self.window_time_zone)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions that the answer is split by."""
        return tuple(dict.fromkeys(name for name in self.group_by if name not in {SUBJECT, CUSTOMER}))

    @property
    def by_subject(self) -> bool:
        """Whether the answer has a row a subject: a query for subjects always has."""
        return SUBJECT in self.group_by or bool(self.subject)

    @property
    def filters(self) -> dict[str, TextFilter]:
        """What the values of dimensions have to pass."""
        listed = {key: TextFilter.model_validate({"$in": list(found)}) for key, found in self.filter_group_by.items()}
        return {**listed, **self.advanced_meter_group_by_filters}

    @property
    def by_customer(self) -> bool:
        """Whether the answer has a row a customer: a query for customers always has."""
        return CUSTOMER in self.group_by or bool(self.filter_customer_id)

    def check(self, meter: Meter, customers: Collection[str]) -> None:
        """Raises InvalidQueryError where the meter has not what is asked for, UnknownCustomerError for a customer."""
        for name in self.group_by:
            if name not in {SUBJECT, CUSTOMER, *meter.group_by}:
                raise InvalidQueryError(f"invalid group by: {name}")
        for name in (*self.filter_group_by, *self.advanced_meter_group_by_filters):
            if name not in meter.group_by:
                raise InvalidQueryError(f"invalid group by filter: {name}")
        for customer in self.filter_customer_id:
            if customer not in customers:
                raise UnknownCustomerError(f"customer with id {customer} not found")


def usage_query(parameters: dict[str, Any]) -> UsageQuery:
    """A query from the parameters of a request. Raises InvalidQueryError, with the first thing that is wrong.

    >>> usage_query({"windowSize": "DAY", "windowTimeZone": "Mars"})
    Traceback (most recent call last):
    schemas.usage_query.InvalidQueryError: invalid time zone: unknown time zone Mars
    """
    try:
        return UsageQuery.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place, message = ".".join(str(step) for step in first["loc"]), first["msg"].removeprefix("Value error, ")
        ours = first["type"] == "value_error" and place not in {"from", "to", "asOf"}
        raise InvalidQueryError(message if ours else f"{place}: {message}") from None
