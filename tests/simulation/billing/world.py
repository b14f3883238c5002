"""Does the steps of a simulation with the product's own code, over a real PostgreSQL."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from invoicing import store as invoicing
from invoicing.accruals.documents import UNBILLED
from invoicing.accruals.store import accrue
from invoicing.credit_notes.amounts import NotCreditableError
from invoicing.invoices import store as invoices
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.lifecycle import NotTakenError
from invoicing.invoices.manual import invoices_of
from invoicing.late_usage.policies import LATE
from invoicing.ledger.documents import documents_of
from invoicing.ledger.store import OtherContentError, hold
from invoicing.periods import store as periods
from invoicing.recognition.store import recognise
from invoicing.reconciliation.matching import ROWS
from invoicing.reconciliation.store import reconcile_payout
from invoicing.settlement import app as settling
from invoicing.settlement.app import Act, ClosedPeriodError, NoCreditError
from invoicing.wallets.store import Lot, expire, top_up
from meterline import ledger, manual_invoices
from meterline.accruing import RatedMonth, unbilled
from meterline.assembling import Assembly
from meterline.billing import How, billed
from meterline.charged import Charged
from meterline.credit_notes import parsed, write_note
from meterline.idempotency import idempotent
from meterline.levels import Levels
from meterline.progressive import drafts_for
from schemas.api_key import Access
from schemas.contract import Contracts, parse_contracts
from schemas.identity import content_digest, digest
from schemas.invoice import BOOKED, CHARGED, Basis, Run
from schemas.money import MINOR_UNITS
from schemas.payment import FailedPayment, Payment, Refund, WriteOff
from schemas.plan import Policies, TaxRule
from schemas.price_book import PriceBook, parse_price_book
from tests.simulation.billing.amounts import Rule, first_day, month_end
from tests.simulation.billing.books import RefusedError
from tests.simulation.billing.customers import TENANT, Rated, Usage

BY = "Ada"
BEGINS = datetime(2031, 1, 20, 9, tzinfo=UTC)
_BOOK = """
book: b
version: 1
effective_at: 2030-01-01
currency: EUR
plans:
  - {id: p, charges: [{id: calls, model: flat, amount: 1}]}
"""
_REVENUES = {"subtotal": "usage", "fees": "fee", "advance": "advance", "commitment": "commitment"}
Step = dict[str, Any]


class World:
    """A database with prices and contracts, and what everybody has used."""

    def __init__(self, database: sa.Engine, usage: Usage) -> None:
        self.database, self.usage = database, usage
        self.book: PriceBook = parse_price_book(_BOOK, "b", None)
        named = "".join(
            f"  - {{customer: {name}, name: {name} Ltd, subjects: [{name}], plan: p, starts_on: 2030-01-01}}\n"
            for name in usage.customers
        )
        self.contracts: Contracts = parse_contracts(f"contracts:\n{named}", "c")
        with database.begin() as connection:
            invoicing.apply_price_book(
                connection, TENANT, book="b", version=1, digest=self.book.digest, body=self.book.canonical(),
                applied_at=BEGINS,
            )  # fmt: skip
            invoicing.apply_contracts(
                connection, TENANT, digest=self.contracts.digest, body=self.contracts.canonical(), applied_at=BEGINS
            )
        self.shown: Any = None
        """What the last dry run has shown."""

    def do(self, step: Step) -> str:
        """Do a step: done, known or nothing. Raises RefusedError with a word for what the product refused."""
        try:
            return str(getattr(self, f"_{step['do']}")(step))
        except NotTakenError:
            raise RefusedError("not taken") from None
        except NotCreditableError:
            raise RefusedError("not creditable") from None
        except (ClosedPeriodError, NoCreditError, OtherContentError) as error:
            words = {ClosedPeriodError: "closed", NoCreditError: "no credit", OtherContentError: "other content"}
            raise RefusedError(words[type(error)]) from None
        except LookupError:
            raise RefusedError("unknown") from None
        except ValueError as error:
            for words, kind in (("allowed: a draft", "not a draft"), ("by another process; nothing", "known")):
                if words in str(error):
                    raise RefusedError(kind) from None
            raise
        except sa.exc.DBAPIError as error:
            if "the books of default are closed" in str(error.orig):
                raise RefusedError("closed") from None
            raise

    def _use(self, _: Step) -> str:
        """Usage is shared with the auditor, who notes it."""
        return "done"

    def _bill(self, step: Step) -> str:
        period, how, at = step["period"], How(step["how"]), step["at"]
        with self.database.begin() as connection:
            known = invoicing.run_of(connection, TENANT, period)
            if known and known.state == "posted":
                return "known"
            asked = invoicing.periods_to_rate(connection, TENANT)
            posted = [each.period for each in invoicing.posted_runs(connection, TENANT)]
            run = self._run(step)
            if how is not How.PREVIEW:
                run = invoicing.start_run(connection, TENANT, period, run.basis, started_at=at)
        changed = {name for _, name in self.usage.changed}
        rated = [*(name for name in sorted(posted) if name < period and (name in asked or name in changed)), period]
        with Charged() as charged:
            for name in rated:
                charged.add(self._charges(self.usage.rated(name, advance=name == period), run))
            bases = dict.fromkeys([*rated, *sorted(charged.periods)], run.basis)
            names = {contract.customer: contract.name for contract in self.contracts.contracts}
            assembly = Assembly(TENANT, period, bases, names, Policies())
            shown, _ = billed(
                self.database, run, assembly, charged, Levels(self.database, run),
                arrived=lambda charges: self._late(charges, run), how=how, now=lambda: at,
            )  # fmt: skip
        self.shown = shown
        return "done"

    def _run(self, step: Step) -> Run:
        basis = Basis(step["cut"], "b", 1, self.book.digest, self.contracts.digest)
        return Run(TENANT, step["period"], basis, "started", started_at=step["at"], posted_at=None)

    def _charges(self, rated: list[Rated], run: Run) -> pl.DataFrame:
        rows = [
            {
                "customer": each.customer, "period": each.period, "charge": each.charge, "kind": each.kind,
                "revenue": each.revenue, "description": each.charge, "model": "standard",
                "meter": each.charge if each.revenue == "subtotal" else None, "quantity": Decimal(1), "slices": [],
                "amount": Decimal(each.minor), "amount_minor": each.minor, "tax_rule": rule_text(each.rule),
                "service_start": each.service[0], "service_end": each.service[1],
                "currency": self.usage.customers[each.customer].currency, "book": "b", "book_version": 1,
                "book_digest": self.book.digest, "contracts_digest": self.contracts.digest, "cut": run.basis.cut,
            }
            for each in rated
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=CHARGED)

    def _late(self, charges: pl.DataFrame, run: Run) -> pl.DataFrame:
        """Whose usage of the rated periods arrived late, as the search in the engine would say it."""
        own = set(charges.select("customer", "period").unique().rows())
        rows = [
            (customer, period, self.usage.customers[customer].policy, ["calls"], count)
            for (customer, period), count in sorted(self.usage.changed.items())
            if period < run.period and (customer, period) in own
        ]
        return pl.DataFrame(rows, schema=LATE, orient="row")

    def _progressive(self, step: Step) -> str:
        period, at = step["period"], step["at"]
        run = self._run(step)
        with self.database.begin() as connection:
            invoicing.lock(connection, TENANT)
            known = invoicing.run_of(connection, TENANT, period)
            if known and known.state == "posted":
                return "known"
            charges = self._charges(
                [each for each in self.usage.rated(period, advance=False) if each.revenue == "subtotal"], run
            )
            before = invoices.booked(connection, TENANT, [period]).filter(pl.col("revenue") == "subtotal")
            owners = [(name, self.usage.customers[name].currency) for name in step["customers"]]
            wanted = pl.DataFrame(owners, {"customer": pl.String, "currency": pl.String}, orient="row")
            early = invoices.issued_before_their_run(connection, TENANT, period)
            wanted = wanted.join(early, on=["customer", "currency"], how="anti")
            names = {contract.customer: contract.name for contract in self.contracts.contracts}
            drafts = drafts_for(connection, wanted, charges, before.select(*BOOKED), run, names, Policies())
            issue(connection, drafts, at=at)
        return "done" if drafts.invoices.height else "nothing"

    def _accrue(self, step: Step) -> str:
        period, at = step["period"], step["at"]
        run = self._run(step)
        charges = self._charges(self.usage.rated(period, advance=False), run)
        with self.database.begin() as connection:
            hold(connection, TENANT)
            known = invoicing.run_of(connection, TENANT, period)
            posted = known is not None and known.state == "posted"
            before = invoices.booked(connection, TENANT, [period])
            month = RatedMonth(period, charges, run.basis, Policies())
            owed = pl.DataFrame(schema=UNBILLED) if posted else unbilled(month, before)
            accrue(connection, TENANT, period, owed, through=month_end(first_day(period)), booked_at=at)
        return "done"

    def _finalize(self, step: Step) -> str:
        return self._once(step, lambda connection, act: settling.finalize(connection, act, step["invoice"]))

    def _pay(self, step: Step) -> str:
        told = {"payment": step["payment"], "amount_minor": step["minor"], "currency": step["currency"]}
        payment = Payment(**told, paid_on=step["day"], payout=step["payout"])
        with self.database.begin() as connection:
            _, new = settling.pay(connection, _act(step), step["invoice"], payment)
        return "done" if new else "known"

    def _fail(self, step: Step) -> str:
        told = {"payment": step["payment"], "amount_minor": step["minor"], "currency": step["currency"]}
        with self.database.begin() as connection:
            payment = FailedPayment(**told, failed_on=step["day"])
            _, new = settling.fail_payment(connection, _act(step), step["invoice"], payment)
        return "done" if new else "known"

    def _apply_credit(self, step: Step) -> str:
        found: list[int] = []

        def apply(connection: sa.Connection, act: Act) -> None:
            found.append(settling.apply_credit(connection, act, step["invoice"], step["at_most"])[1])

        said = self._once(step, apply)
        return said if not found or found[0] else "nothing"

    def _void(self, step: Step) -> str:
        return self._once(step, lambda connection, act: settling.void(connection, act, step["invoice"], "mistake"))

    def _uncollectible(self, step: Step) -> str:
        why = WriteOff(reason="insolvent", tax_relief=step["relief"])
        return self._once(
            step, lambda connection, act: settling.mark_uncollectible(connection, act, step["invoice"], why)
        )

    def _refund(self, step: Step) -> str:
        told = Refund(
            refund=step["refund"], amount_minor=step["minor"], currency=step["currency"], paid_on=step["day"],
            payout=step["payout"],
        )  # fmt: skip
        with self.database.begin() as connection:
            new = settling.refund(connection, _act(step), step["customer"], told)
        return "done" if new else "known"

    def _write(self, step: Step) -> str:
        units = MINOR_UNITS[step["currency"]]
        written = {
            "reference": step["reference"], "customer": step["customer"], "currency": step["currency"],
            "period": step["period"], "lines": [_manual_line(line, units) for line in step["lines"]],
        }  # fmt: skip
        with self.database.begin() as connection:
            [kept] = manual_invoices.keep(
                connection, TENANT, invoices_of([written], "file", ""), source="file", at=step["at"]
            )
            draft = kept.invoices["state"].item() == "draft"
            if draft and step["finalize"]:
                drafts = invoices.drafts_of(connection, TENANT, [kept.invoices["id"].item()])
                issue(connection, drafts, at=step["at"], stored_by=BY)
        return "known" if kept.fate == "unchanged" and not (draft and step["finalize"]) else "done"

    def _delete(self, step: Step) -> str:
        with self.database.begin() as connection:
            found = invoices.invoice(connection, TENANT, step["invoice"])
            manual_invoices.remove(connection, TENANT, found)
        return "done"

    def _credit_note(self, step: Step) -> str:
        wanted = parsed({"invoice": step["invoice"], **step["wanted"]})

        def write(connection: sa.Connection, act: Act) -> Any:
            return write_note(connection, TENANT, wanted, now=act.now, by=BY, dry_run=step.get("dry_run", False))

        return self._once(step, write)

    def _top_up(self, step: Step) -> str:
        lot = Lot(
            step["customer"], step["currency"], step["minor"], step["reference"], step["promotional"], step["priority"],
            step["expires_at"], step["invoiced"],
        )  # fmt: skip
        with self.database.begin() as connection:
            count = "SELECT count(*) FROM wallet_lots"
            before = connection.exec_driver_sql(count).scalar_one()
            top_up(connection, TENANT, lot, at=step["at"])
            return "done" if connection.exec_driver_sql(count).scalar_one() > before else "known"

    def _expire(self, step: Step) -> str:
        with self.database.begin() as connection:
            return "done" if expire(connection, TENANT, at=step["at"]) else "nothing"

    def _recognise(self, step: Step) -> str:
        with self.database.begin() as connection:
            done = recognise(connection, TENANT, step["through"], booked_at=step["at"])
        return "done" if done.rows else "nothing"

    def _document(self, step: Step) -> str:
        amounts = {"P29": ("total", "fee"), "P18": ("provision",), "P08": ("payment",)}[step["template"]]
        major = str(Decimal(step["minor"]).scaleb(-MINOR_UNITS[step["currency"]]))
        written = {
            "template": step["template"], "document": step["document"], "customer": step["customer"],
            "currency": step["currency"], "effective_at": str(step["day"]), "amounts": dict.fromkeys(amounts, major),
        }  # fmt: skip
        _, new = ledger.posted(self.database, TENANT, documents_of([written], "documents"), now=step["at"])
        return "done" if new else "known"

    def _reverse(self, step: Step) -> str:
        entry = digest(TENANT, step["template"], step["document"], 1, 1)
        with self.database.connect() as connection:
            query = "SELECT count(*) FROM journal_entries WHERE relates_to = CAST(%(id)s AS uuid) AND document_kind = 'reversal'"
            before = connection.exec_driver_sql(query, {"id": entry}).scalar_one()
        ledger.reverse(self.database, TENANT, entry, effective_at=step["day"], why="mistake", now=step["at"])
        return "known" if before else "done"

    def _close(self, step: Step) -> str:
        with self.database.begin() as connection:
            return "done" if periods.close_period(connection, TENANT, step["through"]) else "known"

    def _reopen(self, step: Step) -> str:
        with self.database.begin() as connection:
            if any(each.opened_at == step["at"] for each in periods.overrides(connection, TENANT)):
                return "known"
            periods.reopen_period(
                connection, TENANT, step["through"], by=BY, why="audit", opened_at=step["at"], until=step["until"]
            )
        return "done"

    def _reconcile(self, step: Step) -> str:
        rows = [
            {**dict.fromkeys(ROWS, ""), "reference": row["reference"], "kind": "payment", "currency": row["currency"],
             "gross_minor": row["gross"], "fee_minor": row["fee"], "net_minor": row["gross"] - row["fee"],
             "occurred_on": step["day"]}
            for row in step["rows"]
        ]  # fmt: skip
        frame = pl.DataFrame(rows, schema=ROWS)
        with self.database.begin() as connection:
            done = reconcile_payout(
                connection, TENANT, step["payout"], frame, file_digest=content_digest(step["payout"].encode()),
                at=step["at"],
            )  # fmt: skip
        return "done" if done.posted else "known"

    def _once(self, step: Step, command: Callable[[sa.Connection, Act], Any]) -> str:
        """Do what has no id of its own under an idempotency key, as the HTTP API does."""

        def handler(_: Request, connection: sa.Connection) -> Response:
            shown = command(connection, _act(step))
            return JSONResponse(orjson.loads(orjson.dumps(shown, default=str)))

        scope = {
            "type": "http", "method": "POST", "path": f"/{step['do']}", "query_string": b"",
            "headers": [(b"idempotency-key", step["key"].encode())], "state": {"access": Access(TENANT, frozenset())},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": step["key"].encode(), "more_body": False}

        route = idempotent(self.database, handler, moves_money=True, now=lambda: step["at"])
        answer = asyncio.run(route(Request(scope, receive)))
        assert answer.status_code == 200, bytes(answer.body)
        self.shown = orjson.loads(bytes(answer.body))
        return "known" if "Idempotent-Replayed" in answer.headers else "done"


def rule_text(rule: Rule | None) -> str | None:
    """A tax rule as the lines of invoices have it."""
    if rule is None:
        return None
    rates = [{"name": name, "rate_percent": Decimal(percent)} for name, percent in rule[1]]
    return TaxRule.model_validate({"mode": rule[0], "rates": rates}).model_dump_json(exclude_defaults=True)


def _manual_line(line: dict[str, Any], units: int) -> dict[str, Any]:
    written: dict[str, Any] = {
        "description": "Something", "amount": Decimal(line["minor"]).scaleb(-units), "revenue": _REVENUES[line["revenue"]],
    }  # fmt: skip
    if line["rule"] is None:
        return written | {"taxed": False}
    rates = [{"name": name, "rate_percent": percent} for name, percent in line["rule"][1]]
    return written | {"tax": {"mode": line["rule"][0], "rates": rates}}


def _act(step: Step) -> Act:
    return Act(TENANT, BY, step["at"])


def drafts_shown(shown: Drafts) -> dict[str, str]:
    """What invoices say, by their ids: the digests of all that is billed and why."""
    return dict(shown.invoices.select("id", "content_digest").rows())
