"""Rating from the stores: usage of a rater's customers as of a cut, some at a time."""

from collections.abc import Iterator, Sequence
from functools import partial

from aggregation.plan import SubjectRange
from aggregation.recount import Backfill
from aggregation.store import metered_usage, subject_ranges
from meterline.rating_run import rated_in_chunks
from meterline.rollups import backfills_of
from meterline.system import System
from rating.rater import Rated, Rater
from schemas.meter import Meter
from schemas.tenant import DEFAULT_TENANT
from schemas.wanted import Want


def rated_chunks(app: System, meters: Sequence[Meter], rater: Rater) -> Iterator[Rated]:
    """The charges of all customers of a rater, chunk by chunk; of the usage before its cut."""
    backfills: dict[str, list[Backfill]] = {}
    for each in backfills_of(app.database, app.log):
        backfills.setdefault(each.meter.slug, []).append(each)
    cut = rater.basis.cut
    usage = partial(metered_usage, app.clickhouse, app.log.config, DEFAULT_TENANT, meters, backfills=backfills)

    def ranges(wants: Sequence[Want], subjects_at_once: int) -> Sequence[SubjectRange]:
        return subject_ranges(app.clickhouse, DEFAULT_TENANT, wants, cut, subjects_at_once)

    return rated_in_chunks(rater, lambda wants, subjects: usage(wants, cut, subjects), ranges)
