"""How far a worker is behind, and whether it is stuck: alive, with records waiting, and nothing stored."""

from collections.abc import Mapping

from aggregation.metrics import LAG_RECORDS, LAG_SECONDS

STUCK_AFTER_S = 60.0
UNKNOWN_AFTER_S = 15.0


class Health:
    """Gathers what was stored and where the log ends. Instants are seconds since 1970, by the caller's clock."""

    def __init__(self) -> None:
        self._stored: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._waiting_since_s: dict[int, float] = {}
        self._stored_until_s: dict[int, float] = {}
        """For each partition, an instant up to which all that was appended is stored."""
        self._watched_at_s = 0.0

    def assigned(self, stored: Mapping[int, int], now_s: float) -> None:
        """These are the partitions from now on, stored up to these offsets."""
        self._stored, self._ends, self._waiting_since_s, self._stored_until_s = dict(stored), {}, {}, {}
        self._watched_at_s = now_s
        for gauge in (LAG_RECORDS, LAG_SECONDS):
            gauge.clear()  # the last values of a partition that went elsewhere would stand for ever

    def stored(self, partition: int, next_offset: int, appended_at_s: float, now_s: float) -> None:
        """A batch was stored, whose last record was appended at this instant."""
        self._stored[partition] = next_offset
        self._stored_until_s[partition] = max(appended_at_s, self._stored_until_s.get(partition, 0.0))
        if partition in self._waiting_since_s:
            self._waiting_since_s[partition] = now_s

    def watched(self, ends: Mapping[int, int], now_s: float) -> None:
        """The broker told where partitions end."""
        self._watched_at_s = now_s
        self._ends = {partition: end for partition, end in ends.items() if partition in self._stored}
        behind = {partition: max(end - self._stored[partition], 0) for partition, end in self._ends.items()}
        self._waiting_since_s = {
            partition: self._waiting_since_s.get(partition, now_s) for partition, records in behind.items() if records
        }
        for partition, records in behind.items():
            if not records:
                self._stored_until_s[partition] = now_s
            since_s = self._stored_until_s.get(partition, self._waiting_since_s.get(partition, now_s))
            LAG_RECORDS.labels(partition).set(records)
            LAG_SECONDS.labels(partition).set(max(now_s - since_s, 0.0))

    def faults(self, now_s: float, *, ready: bool = False) -> list[str]:
        """What is wrong now, in words; for `ready`, also what keeps it from working yet."""
        unknown_after_s = UNKNOWN_AFTER_S if ready else STUCK_AFTER_S
        faults = [
            f"partition {partition}: stored up to offset {self._stored[partition]} of {self._ends[partition]}, and"
            f" nothing for {now_s - since_s:.0f} s"
            for partition, since_s in self._waiting_since_s.items()
            if now_s - since_s > STUCK_AFTER_S
        ]
        if self._watched_at_s and now_s - self._watched_at_s > unknown_after_s:
            faults.append(f"the broker has not said where the log ends for {now_s - self._watched_at_s:.0f} s")
        if ready and not self._watched_at_s:
            faults.append("no partitions are assigned yet")
        return faults
