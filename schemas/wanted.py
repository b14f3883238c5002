"""What of a meter's usage is wanted, and how finely: rating asks for it, and the stores of usage answer. Core."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

WINDOWS = ("minute", "hour", "day")
"""Windows of UTC, the finest first. Each is whole in the next."""


@dataclass(frozen=True)
class Want:
    """Usage of one meter within [cuts[0], cuts[-1]), added up between neighbouring cuts, and in windows.

    cuts        |            |         |
    windows          |       .    |    .    |
    rows        [----)[------)[---)[---)

    So nothing that begins or ends at a cut or a window's bound does so within a row.
    """

    meter: str
    cuts: tuple[datetime, ...]
    """At least two instants, UTC, in their order."""
    window: str | None = None
    """One of WINDOWS."""
    events: bool = False
    """Whether single events are wanted: then `window` says nothing more."""
    dimensions: tuple[str, ...] = ()
    """What rows are split by, sorted."""


def together(wants: Iterable[Want]) -> tuple[Want, ...]:
    """One want for each meter that asks for as much as all of them, sorted by meter."""
    of_meter: dict[str, list[Want]] = {}
    for want in dict.fromkeys(wants):
        of_meter.setdefault(want.meter, []).append(want)
    return tuple(_united(of_meter[meter]) for meter in sorted(of_meter))


def _united(wants: list[Want]) -> Want:
    windows = {want.window for want in wants}
    return Want(
        meter=wants[0].meter,
        cuts=tuple(sorted({cut for want in wants for cut in want.cuts})),
        window=next((window for window in WINDOWS if window in windows), None),
        events=any(want.events for want in wants),
        dimensions=tuple(sorted({name for want in wants for name in want.dimensions})),
    )
