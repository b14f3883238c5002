"""Which account of another program stands for which of ours. Core.

Owns what a mapping may say; every fault of it is told at once. A rule is for an account and, where it says so, for a
customer, dimension or currency of it alone. Of the rules that a posting fits, the one that says most counts: a customer
before a dimension before a currency, so that there is never a question which.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from invoicing.exports.cells import FORMULA_STARTS
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.journal import Account
from schemas.money import MINOR_UNITS

System = Literal["quickbooks", "netsuite"]
CONDITIONS = ("customer", "dimension", "currency")
"""What a rule may be for alone, the strongest first."""
LISTED_MAX = 20

_FOUND = ("name", "class", "entity", "entity_is_customer")
_Text = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Rule(_Strict):
    """What stands for an account there."""

    account: int
    customer: _Text | None = None
    dimension: _Text | None = None
    currency: str | None = None
    name: _Text
    """The account's name or number, exactly as the other program has it."""
    class_: _Text | None = Field(default=None, alias="class")
    entity: _Text | None = None
    """One customer of the other program that stands for all of ours."""
    entity_is_customer: bool = False
    """Whether each line names its customer. QuickBooks wants it of accounts receivable."""

    @field_validator("name", "class_", "entity")
    @classmethod
    def _whole(cls, text: str | None) -> str | None:
        if text is not None and (text != " ".join(text.split()) or not text or text.startswith(FORMULA_STARTS)):
            raise ValueError(
                "allowed: a name without spaces around it, that does not start as a formula does (= + - @)"
            )
        return text

    @field_validator("account")
    @classmethod
    def _known(cls, number: int) -> int:
        if number not in set(Account):
            raise ValueError(f"allowed: {', '.join(str(each.value) for each in Account)}")
        return number

    @field_validator("currency")
    @classmethod
    def _listed(cls, currency: str | None) -> str | None:
        if currency is not None and currency not in MINOR_UNITS:
            raise ValueError(f"allowed: a currency such as {', '.join(list(MINOR_UNITS)[:3])}")
        return currency

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the rule is for alone."""
        return tuple(name for name in CONDITIONS if getattr(self, name) is not None)


class Mapping(_Strict):
    """The rules of an export, and what the other program wants besides."""

    system: System
    accounts: Annotated[tuple[Rule, ...], Field(strict=False, max_length=100_000)]
    customers: dict[str, _Text] = {}
    """Our customers as the other program names them; who is not in it keeps its name."""
    number_prefix: Annotated[str, StringConstraints(max_length=6, pattern=r"^[A-Za-z0-9-]*$")] = "ML-"
    date_format: Literal["MM/DD/YYYY", "DD/MM/YYYY", "YYYY-MM-DD"] = "MM/DD/YYYY"
    subsidiary: _Text | None = None
    """NetSuite OneWorld's subsidiary, on every line."""
    lines_max: Annotated[int, Field(ge=2, le=25_000)] | None = None
    """Of a file. An entry is never cut, so this bounds its lines too."""


def parse_mapping(text: str, file: str, system: str) -> Mapping:
    """The mapping of a YAML text. Raises ConfigurationError with all faults."""
    parsed = parse_yaml(text, file)
    try:
        mapping = Mapping.model_validate(parsed)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, file)) from None
    if faults := [Fault(file, *fault) for fault in _faults(mapping, system)]:
        raise ConfigurationError(faults)
    return mapping


def _faults(mapping: Mapping, system: str) -> Iterator[tuple[str, str, str]]:
    if mapping.system != system:
        yield "system", mapping.system, f"allowed: {system}, which is the format that is asked for"
    if mapping.subsidiary and mapping.system != "netsuite":
        yield "subsidiary", mapping.subsidiary, "allowed: in a mapping for netsuite alone"
    if not mapping.accounts:
        yield "accounts", "none", "allowed: a rule for each account that occurs"
    seen: dict[tuple[Any, ...], int] = {}
    for place, rule in enumerate(mapping.accounts):
        key = (rule.account, rule.customer, rule.dimension, rule.currency)
        if key in seen:
            yield (
                f"accounts[{place}]",
                str(rule.account),
                f"allowed: one rule for the same; accounts[{seen[key]}] is it",
            )
        seen.setdefault(key, place)
        if rule.entity and rule.entity_is_customer:
            yield f"accounts[{place}].entity", rule.entity, "allowed: an entity, or entity_is_customer, not both"
    for customer, name in mapping.customers.items():
        if not name.strip() or name.startswith(FORMULA_STARTS):
            yield f"customers.{customer}", name, "allowed: a name that does not start as a formula does (= + - @)"


def mapped(postings: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Postings with what their rules say: `name` (null where no rule fits), `class`, and `entity` ("" where none)."""
    rules: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for rule in mapping.accounts:
        rules.setdefault(rule.conditions, []).append(rule.model_dump(by_alias=True))
    strongest_first = sorted(rules, key=lambda names: [name not in names for name in CONDITIONS])
    kinds = {"account": pl.Int64} | dict.fromkeys(CONDITIONS, pl.String)
    found = postings
    for place, names in enumerate(strongest_first):
        schema = {name: kinds[name] for name in ("account", *names)} | dict.fromkeys(_FOUND[:3], pl.String)
        table = pl.DataFrame(rules[names], schema=schema | {"entity_is_customer": pl.Boolean})
        ours = table.rename({name: f"{name}_{place}" for name in _FOUND})
        found = found.join(ours, on=["account", *names], how="left", maintain_order="left")
    chosen = {name: pl.lit(None) for name in _FOUND}
    for place in reversed(range(len(strongest_first))):  # the whole of a rule counts, with what it leaves open
        fits = pl.col(f"name_{place}").is_not_null()
        chosen = {name: pl.when(fits).then(f"{name}_{place}").otherwise(rest) for name, rest in chosen.items()}
    their = pl.DataFrame(
        {"customer": list(mapping.customers), "their": list(mapping.customers.values())},
        schema={"customer": pl.String, "their": pl.String},
    )
    named = found.with_columns(**chosen).join(their, on="customer", how="left", maintain_order="left")
    customer = pl.when("entity_is_customer").then(pl.coalesce("their", "customer"))
    return named.select(
        *postings.columns, "name", "class",
        pl.coalesce("entity", customer).fill_null("").alias("entity"),
        pl.col("entity_is_customer").fill_null(value=False),
    )  # fmt: skip


def unmapped(postings: pl.DataFrame, mapping: Mapping) -> list[str]:
    """What has no rule among mapped postings, each once: an account, or what of it its rules leave out."""
    known = {rule.account for rule in mapping.accounts}
    missing = postings.filter(pl.col("name").is_null())
    whole = missing.filter(~pl.col("account").is_in(known))["account"].unique().sort()
    parts = (
        missing.filter(pl.col("account").is_in(known))
        .select("account", "currency", "dimension")
        .unique()
        .sort(pl.all())
    )
    return [_titled(account) for account in whole] + [
        f"{_titled(account)} in {currency}" + (f" of {dimension!r}" if dimension else "")
        for account, currency, dimension in parts.iter_rows()
    ]


def _titled(account: int) -> str:
    return f"{account} {Account(account).title}"
