"""Laws of credit notes: no sequence of notes takes more than was billed, and all of them together exactly that."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from invoicing.credit_notes.amounts import Amounts, Line, NotCreditableError, credited, net_of, shares_of
from schemas.credit_note import CreditedLine, Reason, Wanted

MINOR = st.integers(-3000, 3000)
RATES = st.lists(st.integers(0, 12_000), max_size=3)


@st.composite
def billed(draw: st.DrawFn, *, signed: bool = True) -> list[Amounts]:
    """The lines of an invoice, whose taxes are off by a minor unit here and there, as shares of a group's tax are."""
    lines = []
    for net in draw(st.lists(MINOR if signed else st.integers(0, 3000), min_size=1, max_size=5)):
        rates = draw(RATES)
        off = draw(st.lists(st.integers(-1 if signed else 0, 1), min_size=len(rates), max_size=len(rates)))
        lines.append(Amounts(net, tuple(net * rate // 10_000 + more for rate, more in zip(rates, off, strict=True))))
    return lines


@st.composite
def asked(draw: st.DrawFn, lines: list[Line]) -> Wanted:
    """Something that may be asked for, mostly within what is left."""
    net, gross = (sum(getattr(line.left, what) for line in lines) for what in ("net", "gross"))
    way = draw(st.sampled_from(["net", "gross", "lines", "whole"]))
    if way == "lines":
        chosen = draw(st.lists(st.sampled_from(lines), min_size=1, unique_by=lambda line: line.position))
        wanted = []
        for line in chosen:
            what = draw(st.sampled_from(["net", "gross", "rest"]))
            bounds = sorted([0, getattr(line.left, what)]) if what != "rest" else None
            amount = {f"{what}_minor": draw(st.integers(*bounds))} if bounds else {}
            wanted.append(CreditedLine(position=line.position, **amount))
        return Wanted(reason=Reason.OTHER, lines=tuple(wanted))
    if way == "net":
        return Wanted(reason=Reason.OTHER, net_minor=draw(st.integers(1, max(net + 1, 1))))
    if way == "gross":
        return Wanted(reason=Reason.OTHER, gross_minor=draw(st.integers(1, max(gross + 1, 1))))
    return Wanted(reason=Reason.OTHER)


def after(lines: list[Line], taken: dict[int, Amounts]) -> list[Line]:
    """The lines once a note took that."""

    def more(line: Line) -> Amounts:
        own = taken.get(line.position)
        if own is None:
            return line.taken
        taxes = tuple(a + b for a, b in zip(line.taken.taxes, own.taxes, strict=True))
        return Amounts(line.taken.net + own.net, taxes)

    return [Line(line.position, line.billed, more(line)) for line in lines]


def between(part: int, whole: int) -> bool:
    return min(whole, 0) <= part <= max(whole, 0)


@given(billed(), st.data())
def test_notes_take_what_was_billed_and_never_more(lines_billed: list[Amounts], data: st.DataObject) -> None:
    """Of each line, net and each tax; of the invoice, the total. Then the rest is taken: exactly all is back."""
    lines = [Line(n, amounts, Amounts(0, (0,) * len(amounts.taxes))) for n, amounts in enumerate(lines_billed, start=1)]
    total = sum(amounts.gross for amounts in lines_billed)
    assume(total >= 0)
    for _ in range(data.draw(st.integers(0, 4))):
        wanted = data.draw(asked(lines))
        try:
            note = credited(lines, wanted)
        except NotCreditableError:
            continue
        if wanted.net_minor is not None:
            assert sum(each.net for each in note.values()) == wanted.net_minor
        if wanted.gross_minor is not None:
            assert sum(each.gross for each in note.values()) == wanted.gross_minor
        for each in wanted.lines or ():
            own = note.get(each.position, Amounts(0))
            assert each.net_minor in {None, own.net}
            assert each.gross_minor in {None, own.gross}
        lines = after(lines, note)
        for line in lines:
            assert between(line.taken.net, line.billed.net)
            assert all(map(between, line.taken.taxes, line.billed.taxes))
        assert 0 <= sum(line.taken.gross for line in lines) <= total
    if any(line.taken != line.billed for line in lines):
        lines = after(lines, credited(lines, Wanted(reason=Reason.OTHER)))
    assert all(line.taken == line.billed for line in lines)


@given(billed(signed=False), st.data())
@example([Amounts(1, (1,)), Amounts(0, (1,))], None)
def test_of_lines_that_are_not_below_zero_every_amount_can_be_taken(
    lines_billed: list[Amounts], data: st.DataObject | None
) -> None:
    """Net by net or gross by gross, down to the last minor unit, in any steps; none is refused."""
    lines = [Line(n, amounts, Amounts(0, (0,) * len(amounts.taxes))) for n, amounts in enumerate(lines_billed, start=1)]
    for _ in range(6):
        way = data.draw(st.sampled_from(["net", "gross"])) if data else "gross"
        left = sum(getattr(line.left, way) for line in lines)
        if left:
            amount = data.draw(st.integers(1, left)) if data else 1
            note = credited(lines, Wanted(reason=Reason.OTHER, **{f"{way}_minor": amount}))  # type: ignore[arg-type]
            assert sum(getattr(each, way) for each in note.values()) == amount
            lines = after(lines, note)
    assert all(between(line.taken.tax, line.billed.tax) for line in lines)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.integers(0, 10_000), st.sampled_from([1, -1]))
def test_the_tax_of_parts_is_the_tax_of_the_whole_so_far(parts: list[int], rate: int, sign: int) -> None:
    """However often a line is credited, the tax so far is that of the net amount so far, rounded once."""
    net = sum(parts)
    tax = (net * rate + 5_000) // 10_000
    line = Line(1, Amounts(sign * net, (sign * tax,)), Amounts(0, (0,)))
    for part in parts:
        line = after([line], {1: net_of(line, sign * part)})[0]
        assert line.taken.taxes == (sign * ((2 * abs(line.taken.net) * tax + net) // (2 * net)),)


@given(st.lists(MINOR, min_size=1), st.data())
def test_shares_add_up_and_none_is_more_than_its_weight(weights: list[int], data: st.DataObject) -> None:
    """Also where some weights are below zero; the same weights get the same shares."""
    amount = data.draw(st.integers(*sorted([0, sum(weights)])))
    shares = shares_of(amount, weights)
    assert sum(shares) == amount
    assert all(map(between, shares, weights))
