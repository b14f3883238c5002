"""When a webhook is tried again, and when an endpoint gets none any more. Core: `now` is an argument.

Owns the schedule: ten attempts over 75 hours and 35 minutes, then it is over. So whoever remembers the ids of events
for four days sees every repetition as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.identity import digest

SCHEDULE = tuple(timedelta(seconds=each) for each in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400))
"""How long after the attempt before it an attempt is made: 0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h."""
RETRY_AFTER_MAX = timedelta(hours=24)
SLOW_DOWN = timedelta(seconds=30)
"""How long an endpoint that is overloaded is left alone when it does not say so itself."""
CONCURRENCY = 16
"""How many webhooks an endpoint gets at a time; one whose last attempt failed gets one."""


class Outcome(StrEnum):
    """What an answer means."""

    ARRIVED = "arrived"
    FAILED = "failed"
    OVERLOADED = "overloaded"
    """It failed, and the endpoint wants to be left alone for a while."""
    GONE = "gone"
    """The endpoint wants no more webhooks, ever."""


@dataclass(frozen=True)
class Attempt:
    """One try to deliver a webhook."""

    attempted_at: datetime
    status: int | None
    """Of the HTTP answer; None where there was none."""
    retry_after_s: int | None = None
    duration_ms: int = 0
    answer: str = ""
    """How the answer's body begins, or why there was no answer."""

    @property
    def outcome(self) -> Outcome:
        """What the answer means. A redirect is a failure: nothing is sent anywhere but to the endpoint's own URL.

        >>> at = datetime(2026, 1, 1)
        >>> [Attempt(at, status).outcome.value for status in (204, 301, 410, 429, 500, 502, None)]
        ['arrived', 'failed', 'gone', 'overloaded', 'failed', 'overloaded', 'failed']
        """
        match self.status:
            case int(status) if 200 <= status < 300:
                return Outcome.ARRIVED
            case 410:
                return Outcome.GONE
            case 429 | 502 | 504:
                return Outcome.OVERLOADED
            case 503 if self.retry_after_s:
                return Outcome.OVERLOADED
            case _:
                return Outcome.FAILED


def next_attempt(history: Sequence[Attempt], now: datetime, *, seed: str = "") -> datetime | None:
    """When to try again after these attempts, the last of which ended now; None: never, it arrived or is over.

    Up to a tenth is added to the schedule, by the seed: webhooks that failed together do not come back together. An
    endpoint that says how long it wants to be left alone is left alone for so long, though not longer than a day.

    >>> at = datetime(2026, 1, 1)
    >>> next_attempt([Attempt(at, 500)], at).time().isoformat()[:10]
    '00:00:05.0'
    >>> next_attempt([Attempt(at, 500)] * 10, at) is None
    True
    """
    if not history:
        return now
    last = history[-1]
    if last.outcome in {Outcome.ARRIVED, Outcome.GONE} or len(history) >= len(SCHEDULE):
        return None
    delay = SCHEDULE[len(history)]
    part = int(digest("webhook jitter", seed, len(history))[:8], 16) % 1000
    return now + max(delay + delay * part // 10_000, _asked_for(last))


def paused_until(attempt: Attempt, now: datetime) -> datetime | None:
    """Until when an endpoint that answered so, now, is left alone altogether; None: it is not."""
    if attempt.outcome not in {Outcome.OVERLOADED, Outcome.GONE}:
        return None
    return now + (_asked_for(attempt) or SLOW_DOWN)


def gives_up(history: Sequence[Attempt], last_success_at: datetime | None) -> bool:
    """Whether an endpoint is to be disabled once this delivery is over: nothing else arrived since it began, either.

    An endpoint that takes all but one webhook is left enabled: only that delivery has failed.
    """
    return last_success_at is None or last_success_at < history[0].attempted_at


def retry_after_s(header: str | None) -> int | None:
    """The seconds of a Retry-After header; None for none, or for one that is no number of seconds.

    >>> retry_after_s("120"), retry_after_s("soon"), retry_after_s("9" * 20)
    (120, None, 86400)
    """
    if header is None or not header.strip().isascii() or not header.strip().isdigit():
        return None
    digits = header.strip()
    return int(RETRY_AFTER_MAX.total_seconds()) if len(digits) > 9 else int(digits)


def _asked_for(attempt: Attempt) -> timedelta:
    if attempt.outcome is not Outcome.OVERLOADED or attempt.retry_after_s is None:
        return timedelta(0)
    return min(timedelta(seconds=attempt.retry_after_s), RETRY_AFTER_MAX)
