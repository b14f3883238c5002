"""The soak benchmark at smoke size: every acknowledged event is counted, and its fit tells a leak from noise."""

from random import Random

import pytest

from benchmarks.soak import MIB, SMOKE_SECONDS, Sample, memory, run


def test_the_soak_benchmark_counts_every_event() -> None:
    """The benchmark itself holds the rollups against plain Python; its digest is always this."""
    result = run(SMOKE_SECONDS)
    assert result["acknowledged_events"] == result["counted_events"] + result["duplicates"] == 4000
    assert result["digest"].startswith("e3ffa57e8ab40e49")
    assert result["bytes_a_key"] == 18
    assert result["query_p99_ms"] > 0


@pytest.mark.parametrize("leak_mib_a_minute", [0, 3])
def test_a_leak_is_told_from_keys_from_warming_up_and_from_noise(leak_mib_a_minute: int) -> None:
    """Over ten minutes: the slope without the keys is the leak's, though a fifth of the samples are far too high."""
    random = Random(1)
    samples = []
    for at_s in range(0, 600, 3):
        keys = at_s * 1000
        held = min(at_s, 60) * MIB + leak_mib_a_minute * at_s * MIB // 60
        noise = (random.randrange(-MIB, MIB), 50 * MIB)[random.random() < 0.2]
        samples.append(Sample(at_s, 100 * MIB, 200 * MIB + held + noise + 18 * keys, keys, 18 * keys))
    found = memory(samples, 600)
    assert found["worker_without_keys_slope_mib_a_minute"] == pytest.approx(leak_mib_a_minute, abs=0.3)
    assert found["worker_keys_slope_mib_a_minute"] == pytest.approx(60_000 * 18 / MIB, abs=0.01)
    assert (found["gateway_slope_mib_a_minute"], found["gateway_growth_mib"], found["bytes_a_key"]) == (0, 0, 18)
