"""The ledger as an hledger journal. Core.

Descriptions and customers lose the characters that mean something to hledger; the entry's id tells the rest.
"""

import re

import polars as pl

from schemas.journal import Account
from schemas.money import MINOR_UNITS, major

_MEANINGFUL = re.compile(r"[;|:,\s]+")


def hledger_text(entries: pl.DataFrame, postings: pl.DataFrame) -> str:
    """An hledger journal of these entries (columns `schemas.journal.CHAINED`) with their postings."""
    of_entry = postings.partition_by("entry_id", as_dict=True)
    lines = []
    for entry in entries.iter_rows(named=True):
        lines.append(
            f"{entry['effective_at']} * ({entry['sequence']}) {_plain(entry['description'])}  ; id:{entry['id']}"
        )
        for line in of_entry[entry["id"],].iter_rows(named=True):
            amount = major(line["amount_minor"], MINOR_UNITS[line["currency"]])
            account = Account(line["account"])
            name = ":".join(
                [account.kind, f"{account.value} {account.title}", *filter(None, [_plain(line["customer"])])]
            )
            tag = f"  ; dimension:{_plain(line['dimension'])}" if line["dimension"] else ""
            lines.append(f"    {name}  {amount:f} {line['currency']}{tag}")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A text without what hledger reads as the start of something else.

    >>> _plain("Smith; Sons,  Ltd: x")
    'Smith Sons Ltd x'
    """
    return _MEANINGFUL.sub(" ", text).strip()
