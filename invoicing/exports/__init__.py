"""The ledger as texts for other programs, each a function of entries and their postings."""

from collections.abc import Callable

import polars as pl

from invoicing.exports.beancount import beancount_text
from invoicing.exports.hledger import hledger_text

FORMATS: dict[str, Callable[[pl.DataFrame, pl.DataFrame], str]] = {"beancount": beancount_text, "hledger": hledger_text}
"""By the name that `meterline ledger export --format` takes."""
