"""The auditor's arithmetic, over whole numbers and fractions. Written from the rules and not from the code it audits."""

import calendar
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from math import floor

Rule = tuple[str, tuple[tuple[str, int], ...]]
"""A tax rule: its mode, and the names and percentages of its rates."""
Group = tuple[str, int, str]
"""A tax of an invoice: its name, its percentage and its mode."""


def rounded(exact: Fraction) -> int:
    """A half goes away from zero."""
    size = floor(abs(exact) + Fraction(1, 2))
    return size if exact >= 0 else -size


def largest_remainders(total: int, exact: Sequence[Fraction]) -> list[int]:
    """Shares that add up to the total: each rounded down, and one more for the largest remainders, the first ones first.

    A total below zero is shared out as its opposite would be.
    """
    begins = total or next((each for each in exact if each), Fraction(0))
    sign = -1 if begins < 0 else 1
    signed = [sign * each for each in exact]
    shares = [floor(each) for each in signed]
    left = sign * total - sum(shares)
    order = sorted(range(len(shares)), key=lambda place: (-(signed[place] - shares[place]), place))
    for place in order[: max(left, 0)]:
        if signed[place] != floor(signed[place]):
            shares[place] += 1
    return [sign * share for share in shares]


def taxed(lines: Sequence[tuple[int, Rule | None]]) -> tuple[list[tuple[int, list[int]]], dict[Group, int]]:
    """Net amount and taxes of each line (amount and rule), and the taxes of the invoice in the order they appear in."""
    of_line: list[dict[int, int]] = [{} for _ in lines]
    groups: dict[Group, int] = {}
    found: dict[Group, list[tuple[int, int, Fraction]]] = {}
    for place, (amount, rule) in enumerate(lines):
        for number, (name, percent) in enumerate(rule[1] if rule else ()):
            inclusive = bool(rule and rule[0] == "inclusive")
            part = Fraction(percent, 100 + percent) if inclusive else Fraction(percent, 100)
            found.setdefault((name, percent, rule[0] if rule else ""), []).append((place, number, amount * part))
    for group, parts in found.items():
        if group[2] == "inclusive":
            gross = sum(lines[place][0] for place, _, _ in parts)
            total = gross - rounded(Fraction(gross * 100, 100 + group[1]))
        else:
            total = rounded(sum((exact for _, _, exact in parts), Fraction(0)))
        groups[group] = total
        shares = largest_remainders(total, [exact for _, _, exact in parts])
        for (place, number, _), share in zip(parts, shares, strict=True):
            of_line[place][number] = share
    nets = []
    for (amount, rule), taxes in zip(lines, of_line, strict=True):
        own = [taxes[number] for number in sorted(taxes)]
        nets.append((amount - sum(own) if rule and rule[0] == "inclusive" else amount, own))
    return nets, groups


def in_proportion(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in shares by weights, largest remainders first."""
    whole = sum(weights)
    if not amount:
        return [0] * len(weights)
    exact = [Fraction(amount * weight, whole) for weight in weights]
    shares = [floor(each) for each in exact]
    order = sorted(range(len(shares)), key=lambda place: (-(exact[place] - shares[place]), place))
    for place in order[: amount - sum(shares)]:
        shares[place] += 1
    return shares


def cumulative(parts: Sequence[int], of: int, whole: int) -> list[int]:
    """What of each part belongs to a part of the whole: sums are rounded, and each is the difference to the one before."""
    found, before, total = [], 0, 0
    for part in parts:
        total += part
        upto = rounded(Fraction(total * of, whole))
        found.append(upto - before)
        before = upto
    return found


def by_days(amount: int, first: date, end: date) -> dict[date, int]:
    """An amount over months by the days from the first one to the one before the end; months of nothing are left out."""
    days = max((end - first).days, 1)
    found, before, day = {}, 0, first
    while day < max(end, first + timedelta(days=1)):
        following = min(next_month(day.replace(day=1)), max(end, first + timedelta(days=1)))
        upto = rounded(Fraction(amount * (following - first).days, days))
        if upto != before:
            found[day.replace(day=1)] = upto - before
        before, day = upto, following
    return found


def next_month(first: date) -> date:
    """The first day of the month behind."""
    return (first.replace(day=1) + timedelta(days=31)).replace(day=1)


def month_end(first: date) -> date:
    """The last day of a month."""
    return first.replace(day=calendar.monthrange(first.year, first.month)[1])


def first_day(period: str) -> date:
    """The first day of a period such as 2031-01."""
    return date.fromisoformat(f"{period}-01")


def period_of(day: date) -> str:
    """The month of a day."""
    return f"{day:%Y-%m}"


def following(period: str) -> str:
    """The month behind."""
    return period_of(next_month(first_day(period)))
