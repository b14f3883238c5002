"""The gateway's benchmark at smoke size: it runs, and Meterline's topic holds what was sent."""

from benchmarks.gateway import OTHER, OWN, SMOKE, run


def test_the_gateway_benchmark_finds_every_event_in_the_topic() -> None:
    """Both systems acknowledge every request; the benchmark itself reads the topic back; its digest is always this."""
    result = run(SMOKE, 1)
    assert result["digest"] == "9c5983fe70ffe788"
    for workload, measured in zip(SMOKE, result["workloads"], strict=True):
        assert measured["workload"] == workload.name
        assert (measured[OWN]["events"], measured[OTHER]["events"]) == (workload.events, workload.events_to_other)
        assert measured["times_the_events_per_second"] > 0
