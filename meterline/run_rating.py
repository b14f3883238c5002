"""Rating for a bill run: its month, and the billed periods before it that changed, oldest first."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from aggregation.store import first_usage_at, has_late_usage
from invoicing import store as invoicing
from meterline.billable import billable
from meterline.charged import Charged
from meterline.levels import Levels, Stretch, billed_stretches, of_priced, recur, with_months_between
from meterline.output import Output, Progress, Table
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.run_terms import Terms
from meterline.system import System
from rating.claiming import UNASSIGNED
from rating.rater import Rater
from schemas.invoice import Basis, Run
from schemas.tenant import DEFAULT_TENANT


def rate_run(
    app: System, run: Run, month: Period, terms: Terms, charged: Charged, levels: Levels
) -> Generator[Output, None, tuple[dict[str, Basis], list[Output]]]:
    """Rates what a run bills into `charged`, and what charges keep from month to month into `levels`.

    Returns the basis of each period that was rated, and what to say of usage that nobody pays for. Oldest first,
    because a recurring charge starts with what the period before ends with.
    """
    with app.database.connect() as connection:
        own = {each.period: each for each in invoicing.posted_runs(connection, DEFAULT_TENANT)} | {str(month): run}
        asked = invoicing.periods_to_rate(connection, DEFAULT_TENANT)
    cut, of_month = run.basis.cut, terms.rater(month, run, run.basis.cut, advance=True)
    stretches = billed_stretches(own, month)
    if levels.any_before() or recur(of_month.charges):
        used_at, priced_at = first_usage_at(app.clickhouse, DEFAULT_TENANT, cut), terms.priced_from(run.started_at)
        stretches = with_months_between(stretches, used_at and max(used_at, priced_at))
    books = terms.known_at(run.started_at)
    bases: dict[str, Basis] = {}
    lost: list[tuple[str, ...]] = []
    for done, each in enumerate(stretches):
        yield Progress(step="rate", done=done, total=len(stretches))
        name, rater = each.name, of_month
        if each.span != month:
            rater = terms.rater(each.span, own.get(name, run), cut, advance=False)
            rater = rater if each.billed else of_priced(rater)
            if not (name in asked or _changed(app, run, rater, levels, each)):
                continue
        ended = []
        for rated in rated_chunks(app, terms.meters, rater, levels.before(each)):
            ended.append(rated.carried)
            if each.billed:
                charged.add(
                    billable(rated.charges, rated.slices, month=each.span, contracts=terms.contracts, books=books)
                )
                lost += [(name, *row) for row in rated.unassigned.rows()]
        levels.note(each, ended)
        if each.billed:
            bases[name] = replace(own[name].basis, cut=cut, contracts_digest=terms.contracts.digest)
    yield Progress(step="rate", done=len(stretches), total=len(stretches))
    return bases, [_unassigned(lost)] if lost else []


def _changed(app: System, run: Run, rater: Rater, levels: Levels, stretch: Stretch) -> bool:
    """Whether the usage of months, their contracts or the levels they start with changed since they were last rated."""
    last, span = levels.last(stretch), rater.span
    if last is None:
        return stretch.billed or levels.moved(stretch) or recur(rater.charges)
    return (
        last.contracts_digest != run.basis.contracts_digest
        or levels.moved(stretch)
        or (span is not None and has_late_usage(app.clickhouse, DEFAULT_TENANT, *span, last.cut, run.basis.cut))
    )


def _unassigned(rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        title="Usage that nobody pays for: add its subjects to the contracts, and the next run bills it",
        columns=("period", *UNASSIGNED),
        rows=[[str(cell) for cell in row] for row in rows],
    )
