"""What a credit note takes of an invoice: net amounts of lines, and of each of their taxes its part. Core.

Owns the invariant that notes take from each line what is left of it, never more: whatever sequence of notes takes
everything back takes back exactly the net amounts and the taxes that were billed, to the minor unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.credit_note import CreditedLine, Wanted


@dataclass(frozen=True)
class Amounts:
    """A net amount, and taxes on it."""

    net: int
    taxes: tuple[int, ...] = ()

    @property
    def tax(self) -> int:
        """All taxes together."""
        return sum(self.taxes)

    @property
    def gross(self) -> int:
        """Net amount and taxes."""
        return self.net + self.tax

    def less(self, other: "Amounts") -> "Amounts":
        """What is left without the other."""
        taxes = zip(self.taxes, other.taxes, strict=True)
        return Amounts(self.net - other.net, tuple(own - theirs for own, theirs in taxes))


@dataclass(frozen=True)
class Line:
    """An invoice line: what was billed, and what earlier notes took of it."""

    position: int
    billed: Amounts
    taken: Amounts

    @property
    def left(self) -> Amounts:
        """What no note took so far."""
        return self.billed.less(self.taken)


class NotCreditableError(ValueError):
    """What is asked for is more than is left, or nothing. Its text says what is allowed."""


def credited(lines: Sequence[Line], wanted: Wanted) -> dict[int, Amounts]:
    """What a note takes of each line, by position; lines of which it takes nothing are left out.

    Raises NotCreditableError where a line does not have that much, or the note would take more than is left of the
    invoice, be below zero, or take nothing at all.

        100.00 + 20.00 tax and 50.00 + 10.00 tax, of which 90.00 gross are taken:  50.00 + 10.00 and 25.00 + 5.00
    """
    if wanted.lines is not None:
        found = _by_lines(lines, wanted.lines)
    elif wanted.net_minor is not None:
        shares = _spread(lines, wanted.net_minor, [line.left.net for line in lines], "net")
        found = {line.position: net_of(line, share) for line, share in zip(lines, shares, strict=True)}
    elif wanted.gross_minor is not None:
        shares = _spread(lines, wanted.gross_minor, [line.left.gross for line in lines], "gross")
        found = {line.position: gross_of(line, share) for line, share in zip(lines, shares, strict=True)}
    else:
        found = {line.position: line.left for line in lines}
    found = {position: amounts for position, amounts in found.items() if amounts.net or any(amounts.taxes)}
    _refuse_unfit(lines, found)
    return found


def net_of(line: Line, net: int) -> Amounts:
    """A net amount of a line with its taxes: the part that all net amounts so far have in the tax, less what was taken.

    >>> third = Line(1, Amounts(100, (19,)), Amounts(33, (6,)))  # 6.27
    >>> net_of(third, 33), net_of(third, 67)  # 12.54 less 6; all that is left
    (Amounts(net=33, taxes=(7,)), Amounts(net=67, taxes=(13,)))
    """
    after = line.taken.net + net
    if after == line.billed.net:
        taxes = line.billed.taxes if net else line.taken.taxes
    else:
        taxes = tuple(
            _within(_quotient(after * billed, line.billed.net), taken, billed)
            for billed, taken in zip(line.billed.taxes, line.taken.taxes, strict=True)
        )
    return Amounts(after, taxes).less(line.taken)


def gross_of(line: Line, gross: int) -> Amounts:
    """An amount of a line with taxes in it: the net amount is rounded, and what is left of the gross amount is tax.

    >>> gross_of(Line(1, Amounts(100, (19,)), Amounts(0, (0,))), 3)
    Amounts(net=3, taxes=(0,))
    """
    billed, taken = line.billed, line.taken
    after = taken.gross + gross
    low = max(min(taken.net, billed.net), after - max(taken.tax, billed.tax))
    high = min(max(taken.net, billed.net), after - min(taken.tax, billed.tax))
    net = _quotient(after * billed.net, billed.gross) if billed.gross else billed.net
    net = min(max(net, low), high) - taken.net
    return Amounts(net, tuple(shares_of(gross - net, line.left.taxes)))


def shares_of(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in shares in proportion to weights, by the largest remainder; the first ones of equal remainders.

    The amount is between zero and the sum of the weights. So no share is more than its weight, also where some weights
    are below zero.

    >>> shares_of(100, [100, 100, 100]), shares_of(10, [30, -10])
    ([34, 33, 33], [15, -5])
    """
    whole = sum(weights)
    assert min(whole, 0) <= amount <= max(whole, 0), (amount, weights)
    if not amount:
        return [0] * len(weights)
    floors, remainders = zip(*(divmod(amount * weight * _sign(whole), abs(whole)) for weight in weights), strict=True)
    left = amount - sum(floors)
    served = sorted(range(len(weights)), key=lambda place: -remainders[place])[:left]
    shares = list(floors)
    for place in served:
        shares[place] += 1
    return shares


def _by_lines(lines: Sequence[Line], wanted: Sequence[CreditedLine]) -> dict[int, Amounts]:
    known = {line.position: line for line in lines}
    found = {}
    for each in wanted:
        if each.position not in known:
            raise NotCreditableError(f"line {each.position}; allowed: 1 to {len(lines)}")
        line, name = known[each.position], f"line {each.position}"
        if each.net_minor is not None:
            found[each.position] = net_of(line, _bounded(each.net_minor, line.left.net, f"{name}: net"))
        elif each.gross_minor is not None:
            found[each.position] = gross_of(line, _bounded(each.gross_minor, line.left.gross, f"{name}: gross"))
        else:
            found[each.position] = line.left
    return found


def _spread(lines: Sequence[Line], amount: int, weights: Sequence[int], what: str) -> list[int]:
    if sum(weights) <= 0:
        raise NotCreditableError(f"nothing is left of the invoice's {what} amount")
    return shares_of(_bounded(amount, sum(weights), what), weights) if lines else []


def _bounded(amount: int, left: int, what: str) -> int:
    if not min(left, 0) <= amount <= max(left, 0):
        raise NotCreditableError(f"{what} {amount} minor units; allowed: what is left, {left}")
    return amount


def _refuse_unfit(lines: Sequence[Line], found: dict[int, Amounts]) -> None:
    """Lines below zero lower an invoice: without them, a note could take more than the invoice came to."""
    total = sum(amounts.gross for amounts in found.values())
    left = sum(line.left.gross for line in lines)
    if not found:
        raise NotCreditableError("the note takes nothing; allowed: something that no earlier note took")
    if not 0 <= total <= left:
        raise NotCreditableError(f"the note comes to {total} minor units; allowed: 0 to what is left, {left}")


def _quotient(dividend: int, divisor: int) -> int:
    """A quotient rounded half away from zero.

    >>> _quotient(5, 2), _quotient(-5, 2), _quotient(4, 3)
    (3, -3, 1)
    """
    size = (2 * abs(dividend) + abs(divisor)) // (2 * abs(divisor))
    return size * _sign(dividend) * _sign(divisor)


def _within(amount: int, one: int, other: int) -> int:
    return min(max(amount, min(one, other)), max(one, other))


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
