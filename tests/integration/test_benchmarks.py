"""The benchmarks at smoke size: they run, count right, and give the same digest every time."""

from benchmarks import import_flights, rating


def test_the_import_benchmark_counts_every_flight() -> None:
    """Two runs over the first flights give the same usage."""
    first, second = import_flights.run(3000), import_flights.run(3000)
    assert first["events_per_second"] > 0
    assert first["digest"] == second["digest"]


def test_the_rating_benchmark_agrees_with_its_oracle() -> None:
    """Two runs give the same charges; the benchmark itself holds them against the slow oracle."""
    first, second = rating.run(5000), rating.run(5000)
    assert first["lines"] >= 5000
    assert first["digest"] == second["digest"]
