"""Bad configuration stops at the start, with one message that lists every fault.

Owns how a YAML text becomes values: decimals stay decimals (never floats), a key that stands twice is a fault, and a
fault names its file, key, value and what is allowed there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a configuration file."""

    file: str
    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key or '(the file)'}: {self.value}: {self.allowed}"


class ConfigurationError(ValueError):
    """A configuration cannot be used. Its text lists all faults, one a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        assert self.faults, "an error without a fault"
        count = len(self.faults)
        head = f"{count} fault{'s' if count > 1 else ''} in the configuration; nothing was applied:"
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults)]))


class _DecimalLoader(yaml.SafeLoader):
    """YAML in which a number with a point is a Decimal, and a key that stands twice is an error.

    A key is never a boolean: YAML 1.1 takes `on` for one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", mark)
        return super().construct_mapping(node, deep)


_DecimalLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: Decimal(node.value.replace("_", "")))
_DecimalLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


def parse_yaml(text: str, file: str) -> dict[str, Any]:
    """The mapping that a YAML text holds. Raises ConfigurationError when it is no YAML or no mapping.

    >>> parse_yaml("{price: 0.10, on: 2013-01-31}", "book.yaml")
    {'price': Decimal('0.10'), 'on': '2013-01-31'}
    """
    try:
        parsed = yaml.load(text, Loader=_DecimalLoader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError([Fault(file, where, error.problem or "not YAML", "allowed: YAML 1.1")]) from error
    except (yaml.YAMLError, ArithmeticError, ValueError) as error:
        raise ConfigurationError([Fault(file, "", str(error), "allowed: YAML 1.1")]) from error
    if not isinstance(parsed, dict):
        raise ConfigurationError([Fault(file, "", f"a {type(parsed).__name__}", "allowed: a mapping of keys")])
    return parsed


def faults_of(error: ValidationError, file: str, prefix: str = "") -> list[Fault]:
    """The faults that pydantic found, with the key written as a path: `plans[0].charges[2].tiers[1].up_to`."""
    return [
        Fault(
            file,
            (prefix + _path(details["loc"])).rstrip("."),
            _shown(details),
            details["msg"].removeprefix("Value error, "),
        )
        for details in error.errors()
    ]


def _path(location: tuple[int | str, ...]) -> str:
    """The location as keys; a step in angle brackets is which of several types was taken, and no key."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return re.sub(r"\.<[a-z_ ]+>", "", path).removeprefix(".")


def _shown(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return "missing"
    text = str(details["input"]) if isinstance(details["input"], Decimal) else repr(details["input"])
    return text if len(text) <= 80 else text[:77] + "..."
