"""A switch for tests: ends this process, as a power cut would, at a named step.

METERLINE_KILL_AT=rollups ends it when the step is done for the first time, METERLINE_KILL_AT=rollups:3 for the third.
"""

import os
import signal
from collections import Counter

_VARIABLE = "METERLINE_KILL_AT"
_times: Counter[str] = Counter()


def reached(step: str) -> None:
    """Note that a step is done. Does nothing where the switch is not set."""
    fatal = os.environ.get(_VARIABLE)
    if not fatal:
        return
    _times[step] += 1
    name, _, times = fatal.partition(":")
    if step == name and _times[step] == int(times or 1):
        os.kill(os.getpid(), signal.SIGKILL)
