"""What a run costs: CPU time and memory of whole process trees, sampled beside it."""

import bisect
import threading
import time
from collections.abc import Callable, Iterable

import psutil

INTERVAL_S = 0.1


class Sampler:
    """Samples processes and all their descendants from `start` to `stop`.

    Resident memory is added up over the processes, so pages that they share count more than once. The CPU time of a
    process that has ended is what it was at its last sample.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self._roots = roots
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._samples: list[tuple[float, float, int]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End with a last sample."""
        self._stopping.set()
        self._thread.join()

    def cpu_s(self, started_at: float, ended_at: float) -> float:
        """CPU seconds, user and system, spent between two instants (seconds since 1970)."""
        return self._cpu_at(ended_at) - self._cpu_at(started_at)

    def peak_memory_mib(self, ended_at: float) -> int:
        """The most resident memory that the processes had until then, together."""
        return max((memory for at, _, memory in self._samples if at <= ended_at + INTERVAL_S), default=0) >> 20

    def _cpu_at(self, at: float) -> float:
        """Interpolated between the samples on either side."""
        place = bisect.bisect(self._samples, at, key=lambda sample: sample[0])
        if not 0 < place < len(self._samples):
            return self._samples[max(0, place - 1)][1] if self._samples else 0.0
        (before, low, _), (after, high, _) = self._samples[place - 1], self._samples[place]
        return low + (high - low) * (at - before) / (after - before)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        memory = 0
        for pid in self._roots():
            try:
                root = psutil.Process(pid)
                tree = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for process in tree:
                try:
                    with process.oneshot():
                        used = process.cpu_times()
                        memory += process.memory_info().rss
                        self._cpu_s[process.pid, process.create_time()] = used.user + used.system
                except psutil.NoSuchProcess:
                    continue
        self._samples.append((time.time(), sum(self._cpu_s.values()), memory))
