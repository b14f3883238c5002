"""What offline rating says, as text for a person, as one JSON object, or as CSV. Amounts are exact texts. Core."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import polars as pl

from meterline.offline import Answer
from meterline.offline_bills import SUMS, Billed
from schemas.event import number_text
from schemas.money import MINOR_UNITS, major

_SUMS = ("amount", "shared", "prepaid", "net", "tax", "due")
_HEAD = ("charge", "description", "quantity", "exact", *_SUMS)
_UTC = ZoneInfo("UTC")


def as_text(answer: Answer, billed: Billed, *, explain: bool) -> str:
    """A table a bill, its taxes, the totals of each currency, and what was left out; explained line by line."""
    slices = _by_charge(answer.rated.slices) if explain else {}
    discounts = _by_charge(answer.rated.discounts) if explain else {}
    lines: list[str] = []
    rows = billed.charges.partition_by("customer", "period_start", as_dict=True, maintain_order=True)
    taxes = billed.taxes.partition_by("customer", "period_start", as_dict=True, maintain_order=True)
    for bill in billed.bills().iter_rows(named=True):
        key = (bill["customer"], bill["period_start"])
        contract = answer.contracts.of(bill["customer"])
        zone = contract.zone if contract else _UTC
        decimals = MINOR_UNITS[bill["currency"]]
        table: list[Sequence[str]] = [_HEAD]
        under: list[list[str]] = [[]]
        for row in rows[key].iter_rows(named=True):
            quantity, amount = (number_text(row[name]) for name in ("quantity", "amount"))
            table.append((row["charge"], row["description"], quantity, amount, *_money(row, decimals)))
            own = [_slice(each, zone) for each in slices.get(row["id"], ())]
            under.append(own + [_discount(each) for each in discounts.get(row["id"], ())])
        table.append(("total", "", "", "", *_money(bill, decimals)))
        period = f"{_instant(bill['period_start'], zone)} to {_instant(bill['period_end'], zone)}"
        zoned = "" if zone == _UTC else f" ({zone.key})"
        name = f" ({contract.name})" if contract and contract.name != bill["customer"] else ""
        book = f"{bill['book']} version {bill['book_version']}"
        lines += [f"{bill['customer']}{name}: {period}{zoned}, {book}, {bill['currency']}"]
        lines += _aligned(table, [*under, []], texts=2)
        if key in taxes:
            lines += [_tax(each, decimals) for each in taxes[key].iter_rows(named=True)]
        lines.append("")
    for total in billed.totals().iter_rows(named=True):
        amounts = zip(_SUMS, _money(total, MINOR_UNITS[total["currency"]]), strict=True)
        of = f"{total['customers']} customer{'' if total['customers'] == 1 else 's'}"
        lines.append(f"Total of {of} in {total['currency']}: " + ", ".join(f"{name} {each}" for name, each in amounts))
    lines += [f"Note: {note}" for note in answer.notes]
    return "\n".join(lines) + "\n"


def as_json(answer: Answer, billed: Billed, *, explain: bool) -> str:
    """One object: charges (with slices and discounts where explained), bills, taxes, totals and notes."""
    charges = [_plain(row) for row in billed.charges.iter_rows(named=True)]
    if explain:
        slices, discounts = _by_charge(answer.rated.slices), _by_charge(answer.rated.discounts)
        for charge in charges:
            for name, rows in (("slices", slices), ("discounts", discounts)):
                found = rows.get(charge["id"], ())
                charge[name] = [_plain({key: row[key] for key in row if key != "charge_id"}) for row in found]
    told = {
        "charges": charges,
        "bills": [_plain(row) for row in billed.bills().iter_rows(named=True)],
        "taxes": [_plain(row) for row in billed.taxes.iter_rows(named=True)],
        "totals": [_plain(row) for row in billed.totals().iter_rows(named=True)],
        "notes": answer.notes,
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n"


def as_csv(answer: Answer, billed: Billed, *, explain: bool) -> str:
    """The charges; explained, their slices instead, each with what it is of."""
    frame = billed.charges
    if explain:
        of_charge = frame.select("customer", "period_start", "charge", "currency", charge_id="id")
        frame = answer.rated.slices.join(of_charge, on="charge_id", maintain_order="left")
        frame = frame.select(*of_charge.columns, *(name for name in answer.rated.slices.columns if name != "charge_id"))
    plain = [_plain(row) for row in frame.iter_rows(named=True)]
    texts = {name: [None if row[name] is None else str(row[name]) for row in plain] for name in frame.columns}
    return pl.DataFrame(texts, schema=dict.fromkeys(frame.columns, pl.String)).write_csv()


def _by_charge(frame: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in frame.iter_rows(named=True):
        found.setdefault(row["charge_id"], []).append(row)
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with exact numbers and instants as texts; whole minor units stay numbers."""
    return {
        name: number_text(value) if isinstance(value, Decimal)
        else value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }  # fmt: skip


def _money(row: Mapping[str, Any], decimals: int) -> list[str]:
    return [f"{major(row[name], decimals):,f}" for name in SUMS]


def _slice(row: Mapping[str, Any], zone: ZoneInfo) -> str:
    """Where the price held, and the sum. A prorated quantity is shown with 9 decimals, and its amount is exact."""
    stretch = f"{_instant(row['from_at'], zone)}..{_instant(row['to_at'], zone)} v{row['book_version']}"
    if row["label"] == "event bounds":  # the change of a sum, and nothing sold
        return f"{stretch}: event bounds, {number_text(row['amount'])}"
    words = [f"{word}, " for word in (row["label"], _up_to(row["up_to"])) if word]
    flat = f" + {number_text(row['flat'])}" if row["flat"] else ""
    quantity, price, flat_, amount = (Fraction(row[name]) for name in ("quantity", "unit_price", "flat", "amount"))
    left = quantity * price + flat_ - amount
    rest = "" if not left or row["label"] == "trial" else (
        " (prorated)" if abs(left) * 10**9 <= price else " (capped)"
    )  # fmt: skip
    sum_ = f"{number_text(row['quantity'])} x {number_text(row['unit_price'])}{flat} = {number_text(row['amount'])}"
    return f"{stretch}: {''.join(words)}{sum_}{rest}"


def _up_to(bound: Decimal | None) -> str:
    return "" if bound is None else f"up to {number_text(bound)}"


def _discount(row: Mapping[str, Any]) -> str:
    step = row["step"].replace("_", " ")
    what = step if row["discount"] in {None, row["step"]} else f"{step} {row['discount']}"
    return f"{what} of the {row['level']}: {number_text(row['amount'])}"


def _tax(row: Mapping[str, Any], decimals: int) -> str:
    base, tax = (f"{major(row[name], decimals):,f}" for name in ("base_minor", "tax_minor"))
    return f"  tax {row['name']} {number_text(row['rate_percent'])} % ({row['mode']}) on {base}: {tax}"


def _instant(at: datetime, zone: ZoneInfo) -> str:
    """A day where it begins there, else the local minute or second."""
    local = at.astimezone(zone)
    if local.hour == local.minute == local.second == 0:
        return f"{local:%Y-%m-%d}"
    return local.replace(tzinfo=None).isoformat(timespec="minutes")


def _aligned(table: Sequence[Sequence[str]], under: Sequence[Iterable[str]], texts: int) -> Iterator[str]:
    """Rows with columns of one width, the first `texts` to the left; each with its lines under it."""
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    for row, lines in zip(table, under, strict=True):
        cells = [
            cell.ljust(width) if at < texts else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()
        yield from (f"      {line}" for line in lines)
