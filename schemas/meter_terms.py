"""The terms of a meter's definition: paths, filters, instants and durations, as they are written and as they are kept.

Owns that a term has one form once it is read, so that another way of writing it is no change of the meter.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

PATH_LENGTH_MAX = 256
DURATION_MAX = timedelta(days=36_500)

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_STEP = re.compile(rf"""\.({_NAME})|\['({_NAME})'\]|\["({_NAME})"\]""")
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)  # a mere number would be seconds since 1970
_DURATION = re.compile(
    r"P(?=[0-9T])(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?=\d)(?:(\d{1,7})H)?(?:(\d{1,8})M)?(?:(\d{1,10})S)?)?"
)


def canonical_path(written: Any) -> str:
    """A path into an event's data as a chain of names. Raises ValueError for one that is not read.

    >>> canonical_path("$['aircraft'].seats")
    '$.aircraft.seats'
    >>> canonical_path("$.items[0].n")
    Traceback (most recent call last):
    ValueError: allowed: names after $, as in $.a.b or $['a']['b']; no array index, wildcard or condition is read
    """
    names, at = [], 1
    if isinstance(written, str) and written.startswith("$") and len(written) <= PATH_LENGTH_MAX:
        while match := _STEP.match(written, at):
            names.append(match[match.lastindex or 0])
            at = match.end()
    if not names or at != len(written):
        raise ValueError(
            "allowed: names after $, as in $.a.b or $['a']['b']; no array index, wildcard or condition is read"
        )
    return ".".join(["$", *names])


def _duration(written: Any) -> timedelta:
    """A duration, from whole days or from ISO 8601 without years and months, whose length depends on the date.

    >>> _duration(35), _duration("P1DT12H")
    (datetime.timedelta(days=35), datetime.timedelta(days=1, seconds=43200))
    """
    if isinstance(written, timedelta):
        duration = written
    elif isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= DURATION_MAX.days:
        duration = timedelta(days=written)
    elif isinstance(written, str) and (match := _DURATION.fullmatch(written)):
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        duration = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        duration = timedelta(-1)
    if not timedelta(0) <= duration <= DURATION_MAX:
        raise ValueError(
            f"allowed: whole days such as 35, or a duration of ISO 8601 such as PT36H; up to {DURATION_MAX.days} days"
        )
    return duration


def duration_text(duration: timedelta) -> str:
    """A duration of whole seconds as ISO 8601 has it.

    >>> duration_text(timedelta(days=35)), duration_text(timedelta(hours=36)), duration_text(timedelta(0))
    ('P35D', 'P1DT12H', 'PT0S')
    """
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{duration.days}D" if duration.days else ""
    clock = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if count)
    return f"P{days}T{clock}" if clock else f"P{days}" if days else "PT0S"


def _instant(written: Any) -> Any:
    if not isinstance(written, datetime) and not (isinstance(written, str) and _DATE_AND_TIME.match(written)):
        raise ValueError("allowed: an RFC 3339 instant such as 2013-01-31T10:00:00Z")
    return written


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("allowed: an instant of the years 1 to 9999, in UTC") from None


Path = Annotated[str, BeforeValidator(canonical_path)]
Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(duration_text, when_used="json")]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_in_utc)]


class Filter(BaseModel):
    """Which texts an event may have at a path. One that has nothing there has the empty text.

    >>> Filter.model_validate(["us", "eu", "eu"]).allowed
    ('eu', 'us')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    allowed: tuple[str, ...] | None = Field(default=None, alias="in")
    refused: tuple[str, ...] | None = Field(default=None, alias="not_in")

    @model_validator(mode="before")
    @classmethod
    def _a_list_allows(cls, written: Any) -> Any:
        listed = {"in": written} if isinstance(written, list) else written
        if isinstance(listed, dict):
            for texts in listed.values():
                if isinstance(texts, list) and not all(isinstance(text, str) for text in texts):
                    raise ValueError(
                        'allowed: texts; a number is compared as it is written, so put it in quotes: "200"'
                    )
            return {key: sorted(set(texts)) if isinstance(texts, list) else texts for key, texts in listed.items()}
        return listed

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.allowed and not self.refused:
            raise ValueError(
                "allowed: a list of texts, or an object with the lists `in` and `not_in`, one of them at least"
            )
        return self
