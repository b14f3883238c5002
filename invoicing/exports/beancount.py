"""The ledger as a beancount file, which `bean-check` judges by rules that are not ours. Core.

Every entry becomes a transaction with its id, document and place in the chain as metadata; every posting keeps its
customer and dimension. Amounts have the decimals of their currency.
"""

from collections.abc import Iterator

import polars as pl

from schemas.journal import Account
from schemas.money import MINOR_UNITS, major

_ROOTS = {"asset": "Assets", "liability": "Liabilities", "revenue": "Income", "expense": "Expenses", "equity": "Equity"}


def beancount_text(entries: pl.DataFrame, postings: pl.DataFrame) -> str:
    """A beancount file of these entries (columns `schemas.journal.CHAINED`) with their postings."""
    if entries.is_empty():
        return ""
    first = min(entries["effective_at"].to_list())
    used = sorted(postings["account"].unique())
    opened = [f"{first} open {account_name(Account(number))}" for number in used]
    of_entry = postings.partition_by("entry_id", as_dict=True)
    return "\n".join([*opened, "", *_transactions(entries, of_entry)])


def account_name(account: Account) -> str:
    """An account as beancount names it.

    >>> account_name(Account.RECEIVABLE), account_name(Account.SLA_CREDITS)
    ('Assets:1100-Receivable', 'Income:4095-Sla-Credits')
    """
    words = "-".join(word.capitalize() for word in account.name.split("_"))
    return f"{_ROOTS[account.kind]}:{account.value}-{words}"


def _transactions(entries: pl.DataFrame, of_entry: dict[tuple[object, ...], pl.DataFrame]) -> Iterator[str]:
    for entry in entries.iter_rows(named=True):
        yield f"{entry['effective_at']} * {_quoted(entry['description'])} ^{entry['id']}"
        yield f"  number: {entry['sequence']}"
        yield f"  template: {_quoted(entry['template'])}"
        yield f"  document: {_quoted(entry['document_id'])}"
        for line in of_entry[entry["id"],].iter_rows(named=True):
            amount = major(line["amount_minor"], MINOR_UNITS[line["currency"]])
            yield f"  {account_name(Account(line['account']))}  {amount:f} {line['currency']}"
            for name in ("customer", "dimension"):
                if line[name]:
                    yield f"    {name}: {_quoted(line[name])}"
        yield ""


def _quoted(text: str) -> str:
    r"""A text as beancount's string.

    >>> _quoted('say "a\\b"')
    '"say \\"a\\\\b\\""'
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
