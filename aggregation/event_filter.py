"""Filters on the events of a list, as OpenMeter's v2 API has them: as conditions in SQL, whose values are all bound.

Texts compare as `schemas/text_filter.py` has it. A filter on instants has one comparison or several that all hold.
"""

import re
from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from schemas.text_filter import DEPTH_MAX, VALUES_MAX, TextFilter
from schemas.usage_query import LISTED_MAX, Instant

_TEXT = {
    "eq": "{column} = {{{name}:String}}", "ne": "{column} != {{{name}:String}}",
    "in_": "{column} IN {{{name}:Array(String)}}", "nin": "{column} NOT IN {{{name}:Array(String)}}",
    "like": "{column} LIKE {{{name}:String}}", "nlike": "{column} NOT LIKE {{{name}:String}}",
    "ilike": "{column} ILIKE {{{name}:String}}", "nilike": "{column} NOT ILIKE {{{name}:String}}",
    "gt": "{column} > {{{name}:String}}", "gte": "{column} >= {{{name}:String}}",
    "lt": "{column} < {{{name}:String}}", "lte": "{column} <= {{{name}:String}}",
}  # fmt: skip
_LIKE = {"like", "nlike", "ilike", "nilike"}
_TIME = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class TimeFilter(BaseModel):
    """Comparisons with instants; all of those that are given hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gt: Instant | None = Field(default=None, alias="$gt")
    gte: Instant | None = Field(default=None, alias="$gte")
    lt: Instant | None = Field(default=None, alias="$lt")
    lte: Instant | None = Field(default=None, alias="$lte")
    and_: tuple["TimeFilter", ...] | None = Field(default=None, alias="$and", max_length=VALUES_MAX)
    or_: tuple["TimeFilter", ...] | None = Field(default=None, alias="$or", max_length=VALUES_MAX)

    @model_validator(mode="after")
    def _not_too_deep(self) -> Self:
        if self.depth > DEPTH_MAX:
            raise ValueError("filter complexity exceeds maximum allowed depth")
        return self

    @property
    def depth(self) -> int:
        """How deep `$and` and `$or` stand in each other."""
        return 1 + max((inner.depth for inner in (*(self.and_ or ()), *(self.or_ or ()))), default=0)


class ExactFilter(BaseModel):
    """Some values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_: tuple[str, ...] = Field(alias="$in", max_length=LISTED_MAX)


class EventFilter(BaseModel):
    """What the events of a list have to pass, by attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    id: TextFilter | None = None
    source: TextFilter | None = None
    subject: TextFilter | None = None
    type: TextFilter | None = None
    customer_id: ExactFilter | None = None
    time: TimeFilter | None = None
    ingested_at: TimeFilter | None = None

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """The conditions in SQL, and their parameters; that on customers is the caller's, who knows their subjects."""
        bound: dict[str, Any] = {}
        texts = {"id": self.id, "source": self.source, "subject": self.subject, "type": self.type}
        times = {"time": self.time, "appended_at": self.ingested_at}
        found = [_text(column, wanted, bound) for column, wanted in texts.items() if wanted]
        return found + [_time(column, wanted, bound) for column, wanted in times.items() if wanted], bound


def _text(column: str, wanted: TextFilter, bound: dict[str, Any]) -> str:
    given = []
    for operator, sql in _TEXT.items():
        value = getattr(wanted, operator)
        if value is not None:
            name = f"filter{len(bound)}"
            bound[name] = _like(value) if operator in _LIKE else value if isinstance(value, str) else list(value)
            given.append(sql.format(column=column, name=name))
    return _joined(given, (
        (word, [_text(column, inner, bound) for inner in several])
        for word, several in (("AND", wanted.and_), ("OR", wanted.or_)) if several is not None
    ))  # fmt: skip


def _time(column: str, wanted: TimeFilter, bound: dict[str, Any]) -> str:
    given = []
    for operator, sql in _TIME.items():
        value = getattr(wanted, operator)
        if value is not None:
            name = f"filter{len(bound)}"
            bound[name] = value
            given.append(f"{column} {sql} {{{name}:DateTime64(6, 'UTC')}}")
    return _joined(given, (
        (word, [_time(column, inner, bound) for inner in several])
        for word, several in (("AND", wanted.and_), ("OR", wanted.or_)) if several is not None
    ))  # fmt: skip


def _joined(given: list[str], combined: Iterator[tuple[str, list[str]]]) -> str:
    """Conditions that all hold. Of no conditions all hold, and none."""
    nothing = {"AND": "true", "OR": "false"}
    several = [f"({f' {word} '.join(inner) or nothing[word]})" for word, inner in combined]
    return f"({' AND '.join([*given, *several]) or 'true'})"


def _like(pattern: str) -> str:
    r"""A pattern as the engine reads it, where a backslash stands before `%`, `_` and itself alone.

    >>> _like(r"a\b\%c%") == r"ab\%c%"
    True
    """
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(part if part in "%_" else re.sub(r"([\\%_])", r"\\\1", part[-1]) for part in parts)
