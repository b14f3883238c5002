"""The parameters of a request, from its URL or from a JSON body, as the models of queries take them."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from schemas.usage_query import InvalidQueryError

LISTS = ("subject", "groupBy", "filterCustomerId")
JSON = ("advancedMeterGroupByFilters", "filter")
"""Parameters of a URL whose values are JSON."""


class Given(Protocol):
    """The parameters of a URL, some of them several times."""

    def getlist(self, key: Any) -> list[Any]: ...  # noqa: D102
    def items(self) -> Any: ...  # noqa: D102
    def __iter__(self) -> Any: ...


def from_url(given: Given, lists: tuple[str, ...] = LISTS) -> dict[str, Any]:
    """The parameters of a URL; those named in `lists` may be repeated. Raises InvalidQueryError for bad JSON."""
    found: dict[str, Any] = {key: given.getlist(key) if key in lists else value for key, value in given.items()}
    filters = {key[14:-1]: given.getlist(key) for key in given if key.startswith("filterGroupBy[") and key[-1] == "]"}
    if filters:
        found["filterGroupBy"] = filters
    return {key: parsed(value.encode()) if key in JSON else value for key, value in found.items()}


def from_body(body: bytes) -> dict[str, Any]:
    """The parameters of a JSON body. Raises InvalidQueryError for what is none."""
    found = parsed(body) if body else {}
    if not isinstance(found, dict):
        raise InvalidQueryError("allowed: a JSON object")
    return {key: value for key, value in found.items() if value is not None}


def parsed(text: bytes) -> Any:
    """The JSON of a text. Raises InvalidQueryError for what is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidQueryError(f"not JSON: {error}") from None


def range_of(given: Mapping[str, str]) -> dict[str, str]:
    """The parameters that say from when to when."""
    return {key: given[key] for key in ("from", "to") if key in given}


def whole(given: Mapping[str, str], name: str, default: int | None, most: int) -> int | None:
    """A parameter that is a whole number up to `most`. Raises InvalidQueryError for another one.

    >>> whole({"limit": "7"}, "limit", None, 10), whole({}, "limit", 10, 10)
    (7, 10)
    """
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 20 or int(text) > most:
        raise InvalidQueryError(f"{name}: {text}; allowed: a whole number up to {most}")
    return int(text)
