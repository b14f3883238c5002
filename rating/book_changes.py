"""What a new version of a price book changes, and for whom: for a person who decides whether to apply it. Core.

Owns that what is not told is not changed: both books are compared in their canonical form, key by key.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from rating.books import local_midnight
from rating.terms import ends_at, plan_as_of, starts_at
from schemas.contract import Contract, Contracts
from schemas.price_book import PriceBook

_NAMED = {"plans": "plan", "charges": "charge", "discounts": "discount", "features": "feature",
          "pricing_units": "pricing unit"}  # fmt: skip
_TOLD_APART = {"book", "version", "effective_at", "existing_customers_at"}


def changes(before: PriceBook | None, after: PriceBook) -> str:
    """The changes as text, a line each: `+` comes, `-` goes, `~` becomes another. What is left out is at its default.

    >>> flat = {"id": "rent", "model": "flat", "amount": 1}
    >>> old = PriceBook(book="b", version=1, effective_at="2026-01-01", currency="USD",
    ...                 plans=({"id": "p", "charges": (flat,)},))
    >>> print(changes(old, old.model_copy(update={"version": 2, "default_plan": "p"})))
    b: version 1 -> 2
      for contracts that start on 2026-01-01 or later, and for all others from 2026-01-01 on
    + default_plan: p
    """
    version = f"version {before.version} -> {after.version}" if before else f"version {after.version}, the first"
    existing = after.existing_customers_at or after.effective_at
    new = f"for contracts that start on {after.effective_at} or later"
    head = [f"{after.book}: {version}", f"  {new}, and for all others from {existing} on"]
    old, content = (_content(before) if before else {}), _content(after)
    return "\n".join([*head, *(list(_changed(old, content, "")) or ["  no changes"])])


def concerned(book: PriceBook, contracts: Contracts) -> str:
    """Whom a version concerns, a line for each plan: contracts that come to it, that begin with it, that stay away.

    A contract counts for the plan that it has when the version begins to hold for it.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for contract in contracts.contracts:
        if contract.book in {None, book.book}:
            counts[_meeting(book, contract)] += 1
    said = {"comes": f"existing from {book.existing_customers_at or book.effective_at} on",
            "begins": f"new from their start on ({book.effective_at} or later)",
            "pinned": "on a version of their own"}  # fmt: skip
    lines = []
    for plan in sorted({plan for plan, how in counts if how in said}):
        parts = [f"{counts[plan, how]:,} {words}" for how, words in said.items() if counts[plan, how]]
        lines.append(f"  {plan}: {', '.join(parts)}")
    return "\n".join(["contracts on its plans:", *(lines or ["  none"])])


def _meeting(book: PriceBook, contract: Contract) -> tuple[str, str]:
    """The plan on which a contract meets a version, and how: comes to it, begins with it, is pinned, is gone."""
    begins = local_midnight(book.holds_from(contract.starts_on), contract.zone)
    instant = max(begins, starts_at(contract))
    end = ends_at(contract)
    plan = plan_as_of(contract, instant)
    if end is not None and instant >= end:
        return plan, "gone"
    if contract.price_version not in {None, book.version}:
        return plan, "pinned"
    return plan, "begins" if contract.starts_on >= book.effective_at else "comes"


def _content(book: PriceBook) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(book.canonical())
    return {key: value for key, value in content.items() if key not in _TOLD_APART}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys(), key=lambda key: (key in _NAMED, key)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key in _NAMED and _with_ids(old) and _with_ids(new):
            yield from _members(_NAMED[key], old or [], new or [], indent)
        elif isinstance(old, dict) and isinstance(new, dict):
            yield f"{indent}~ {key}"
            yield from _changed(old, new, f"{indent}    ")
        elif key not in after:
            yield f"{indent}- {key}: {_shown(old)}"
        elif key not in before:
            yield f"{indent}+ {key}: {_shown(new)}"
        else:
            yield f"{indent}~ {key}: {_shown(old)} -> {_shown(new)}"


def _members(kind: str, before: list[Any], after: list[Any], indent: str) -> Iterator[str]:
    old, new = ({each["id"]: each for each in listed} for listed in (before, after))
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            yield f"{indent}+ {kind} {name}"
            yield from _changed({}, _apart(new[name]), f"{indent}    ")
        elif name not in new:
            yield f"{indent}- {kind} {name}"
        elif old[name] != new[name]:
            yield f"{indent}~ {kind} {name}"
            yield from _changed(_apart(old[name]), _apart(new[name]), f"{indent}    ")
    kept = [name for name in old if name in new]
    if kept != [name for name in new if name in old]:
        yield f"{indent}~ order of the {kind}s: {', '.join(old)} -> {', '.join(new)}"


def _apart(member: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in member.items() if key != "id"}


def _with_ids(listed: Any) -> bool:
    return listed is None or (
        isinstance(listed, list) and all(isinstance(each, dict) and "id" in each for each in listed)
    )


def _shown(value: Any) -> str:
    """In YAML's short form, as a person would have written it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
