"""How many events a tenant may send: a token bucket for each, refilled at the tenant's rate.

Counts in one process: N gateways let through N times the rate. Owns that over any stretch of time no more than
`burst + rate x time` events of a tenant are let through. Time is an argument, in whole nanoseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from ingest.request import Refusal, RefusedError

SECOND_NS = 1_000_000_000
TENANTS_MAX = 10_000  # after so many, buckets that are full again are forgotten: they say nothing


@dataclass(frozen=True)
class Rate:
    """A bucket's size and how fast it fills."""

    events_per_second: int
    burst: int

    def duration_ns(self, events: int) -> int:
        """How long the bucket takes to fill by so many events, rounded up.

        >>> Rate(3, burst=10).duration_ns(1)
        333333334
        """
        return -(-events * SECOND_NS // self.events_per_second)


def take(full_at_ns: int, rate: Rate, events: int, now_ns: int) -> tuple[int, int]:
    """Take events from a bucket that is full again at an instant; returns the next such instant, and how long to wait.

    When there is something to wait, nothing was taken. A bucket is known by one number: what is missing in it, as the
    time that it takes to fill.

    >>> take(0, Rate(10, burst=5), 5, now_ns=0)
    (500000000, 0)
    >>> take(500000000, Rate(10, burst=5), 2, now_ns=100000000)
    (500000000, 100000000)
    """
    after_ns = max(full_at_ns, now_ns) + rate.duration_ns(events)
    wait_ns = after_ns - now_ns - rate.duration_ns(rate.burst)
    return (full_at_ns, wait_ns) if wait_ns > 0 else (after_ns, 0)


@dataclass
class RateLimits:
    """The buckets of all tenants. Without a rate for all, only tenants with one of their own have one."""

    clock_ns: Callable[[], int]
    events_per_second: int | None = None
    burst_s: int = 10
    """A bucket holds what its tenant may send in so many seconds."""
    _full_at_ns: dict[str, int] = field(default_factory=dict)

    def take(self, tenant: str, own: int | None, events: int) -> None:
        """Let a tenant's events through, `own` being its own rate. Raises RefusedError, and then takes nothing.

        With no events, it tells whether the next one would be let through.
        """
        if (events_per_second := own or self.events_per_second) is None:
            return
        rate = Rate(events_per_second, events_per_second * self.burst_s)
        if events > rate.burst:
            detail = (
                f"{events} events; {_words(tenant, rate)}, so no more than {rate.burst} at once; send fewer a request"
            )
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, Refusal.RATE)
        now_ns = self.clock_ns()
        if len(self._full_at_ns) > TENANTS_MAX:
            self._full_at_ns = {name: at_ns for name, at_ns in self._full_at_ns.items() if at_ns > now_ns}
        full_at_ns = self._full_at_ns.get(tenant, now_ns)
        next_ns, wait_ns = take(full_at_ns, rate, max(events, 1), now_ns)
        if wait_ns:
            raise _too_many(tenant, rate, wait_ns)
        if events:
            self._full_at_ns[tenant] = next_ns


def _too_many(tenant: str, rate: Rate, wait_ns: int) -> RefusedError:
    wait_s = -(-wait_ns // SECOND_NS)
    detail = f"{_words(tenant, rate)}; nothing was stored; try again in {wait_s} s"
    refused = RefusedError(HTTPStatus.TOO_MANY_REQUESTS, detail, Refusal.RATE, eventsPerSecond=rate.events_per_second)
    refused.headers["Retry-After"] = str(wait_s)
    return refused


def _words(tenant: str, rate: Rate) -> str:
    return f"the tenant {tenant} may send {rate.events_per_second} events a second, {rate.burst} of them in a burst"
