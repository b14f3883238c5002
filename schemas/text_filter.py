"""Filters on the values of a dimension, with the operators of OpenMeter's v1 API. Decides what a filter lets through.

A filter has one operator; `$and` and `$or` combine filters. Texts compare by their code points. In a `$like` pattern
`%` stands for any text and `_` for one character, and a backslash takes their meaning away.
"""

import re
from functools import lru_cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEPTH_MAX = 10
VALUES_MAX = 1000


class TextFilter(BaseModel):
    """One operator and what it compares with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    eq: str | None = Field(default=None, alias="$eq")
    ne: str | None = Field(default=None, alias="$ne")
    in_: tuple[str, ...] | None = Field(default=None, alias="$in", max_length=VALUES_MAX)
    nin: tuple[str, ...] | None = Field(default=None, alias="$nin", max_length=VALUES_MAX)
    like: str | None = Field(default=None, alias="$like")
    nlike: str | None = Field(default=None, alias="$nlike")
    ilike: str | None = Field(default=None, alias="$ilike")
    nilike: str | None = Field(default=None, alias="$nilike")
    gt: str | None = Field(default=None, alias="$gt")
    gte: str | None = Field(default=None, alias="$gte")
    lt: str | None = Field(default=None, alias="$lt")
    lte: str | None = Field(default=None, alias="$lte")
    and_: tuple["TextFilter", ...] | None = Field(default=None, alias="$and", max_length=VALUES_MAX)
    or_: tuple["TextFilter", ...] | None = Field(default=None, alias="$or", max_length=VALUES_MAX)

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        if len(self._given()) > 1:
            raise ValueError("filter is invalid: multiple operators are set")
        if self.depth > DEPTH_MAX:
            raise ValueError("filter complexity exceeds maximum allowed depth")
        return self

    @property
    def depth(self) -> int:
        """How deep `$and` and `$or` stand in each other."""
        return 1 + max((inner.depth for inner in (*(self.and_ or ()), *(self.or_ or ()))), default=0)

    @property
    def values(self) -> tuple[str, ...] | None:
        """The only values that can pass, where the operator lists them."""
        return (self.eq,) if self.eq is not None else self.in_

    def passes(self, value: str) -> bool:
        """Whether the filter lets a value through. A filter without an operator lets all through.

        >>> TextFilter.model_validate({"$or": [{"$like": "eu-%"}, {"$gte": "us"}]}).passes("eu-west")
        True
        """
        return all(_passes(operator, operand, value) for operator, operand in self._given().items())

    def _given(self) -> dict[str, Any]:
        given = ((field.alias or name, getattr(self, name)) for name, field in type(self).model_fields.items())
        return {operator: operand for operator, operand in given if operand is not None}


def _passes(operator: str, operand: Any, value: str) -> bool:  # noqa: PLR0911  one operator a line
    match operator:
        case "$eq" | "$in":
            return value in ((operand,) if isinstance(operand, str) else operand)
        case "$ne" | "$nin":
            return value not in ((operand,) if isinstance(operand, str) else operand)
        case "$like" | "$ilike":
            return _is_like(value, operand, any_case=operator == "$ilike")
        case "$nlike" | "$nilike":
            return not _is_like(value, operand, any_case=operator == "$nilike")
        case "$gt" | "$gte":
            return bool(value > operand) or (operator == "$gte" and value == operand)
        case "$lt" | "$lte":
            return bool(value < operand) or (operator == "$lte" and value == operand)
        case "$and":
            return all(inner.passes(value) for inner in operand)
        case _:
            return any(inner.passes(value) for inner in operand)


def _is_like(value: str, like: str, *, any_case: bool) -> bool:
    """Whether a value fits a LIKE pattern. What stands between two `%` is looked for once, from left to right.

    One regular expression for all of it would take a time that grows with a power of the value's length.
    """
    (head, _), *rest = _stretches(like, any_case=any_case)
    if not rest:
        return head.fullmatch(value) is not None
    found = head.match(value)
    for stretch, _ in rest[:-1]:
        found = found and stretch.search(value, found.end())
    tail, length = rest[-1]
    start = len(value) - length
    return found is not None and found.end() <= start and tail.fullmatch(value, start) is not None


@lru_cache(maxsize=256)
def _stretches(like: str, *, any_case: bool) -> list[tuple[re.Pattern[str], int]]:
    """What stands between the `%` of a pattern, each with the number of characters that it takes."""
    stretches: list[list[str]] = [[]]
    for part in re.findall(r"\\.|.", like, re.DOTALL):
        if part == "%":
            stretches.append([])
        else:
            stretches[-1].append("." if part == "_" else re.escape(part[-1]))
    flags = re.DOTALL | (re.IGNORECASE if any_case else 0)
    return [(re.compile("".join(parts), flags), len(parts)) for parts in stretches]
