"""Filters on the values of dimensions."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.text_filter import DEPTH_MAX, TextFilter

CASES = [
    ({"$eq": "eu"}, ["eu"]),
    ({"$ne": "eu"}, ["", "EU", "eu-west", "us%"]),
    ({"$in": ["eu", ""]}, ["", "eu"]),
    ({"$in": []}, []),
    ({"$nin": ["eu", ""]}, ["EU", "eu-west", "us%"]),
    ({"$like": "eu%"}, ["eu", "eu-west"]),
    ({"$nlike": "eu%"}, ["", "EU", "us%"]),
    ({"$ilike": "eU"}, ["EU", "eu"]),
    ({"$nilike": "eU"}, ["", "eu-west", "us%"]),
    ({"$like": r"%\%"}, ["us%"]),
    ({"$like": "__"}, ["EU", "eu"]),
    ({"$gt": "eu"}, ["eu-west", "us%"]),
    ({"$gte": "eu"}, ["eu", "eu-west", "us%"]),
    ({"$lt": "eu"}, ["", "EU"]),
    ({"$lte": "eu"}, ["", "EU", "eu"]),
    ({"$and": [{"$gte": "eu"}, {"$nlike": "us%"}]}, ["eu", "eu-west"]),
    ({"$or": [{"$eq": ""}, {"$and": [{"$eq": "EU"}]}]}, ["", "EU"]),
    ({}, ["", "EU", "eu", "eu-west", "us%"]),
]


@pytest.mark.parametrize(("operators", "passing"), CASES)
def test_each_operator(operators: dict[str, Any], passing: list[str]) -> None:
    """What passes of the same five values."""
    found = TextFilter.model_validate(operators)
    assert [value for value in ("", "EU", "eu", "eu-west", "us%") if found.passes(value)] == passing


@given(like=st.text("ab%_\\", max_size=6), value=st.text("ab\\", max_size=8))
def test_like_is_what_one_regular_expression_would_say(like: str, value: str) -> None:
    """The way that is fast for long values finds the same as the plain one."""
    parts = re.findall(r"\\.|.", like, re.DOTALL)
    plain = "".join({"%": ".*", "_": "."}.get(part) or re.escape(part[-1]) for part in parts)
    expected = re.fullmatch(plain, value, re.DOTALL) is not None
    assert TextFilter.model_validate({"$like": like}).passes(value) is expected


def test_what_is_no_filter() -> None:
    """Two operators, an unknown one, and filters that stand too deep in each other."""
    deep: dict[str, Any] = {"$eq": "x"}
    for _ in range(DEPTH_MAX):
        deep = {"$and": [deep]}
    for wrong in ({"$eq": "a", "$ne": "b"}, {"$regex": "a"}, {"$in": "a"}, deep):
        with pytest.raises(ValidationError):
            TextFilter.model_validate(wrong)
