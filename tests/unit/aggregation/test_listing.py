"""How many events each subject has had, as a program reads it."""

import polars as pl
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from aggregation.listing import open_metrics


def test_a_subject_ends_no_line_and_forges_none() -> None:
    """Every subject is one label again, with a carriage return as a backslash and an r: the format has none."""
    subjects = ["a", 'b"} 7.0', "c\nd", "e\\", "f\\n", 'g\r\nopenmeter_events_total{subject="h"} 9.0', "\r"]
    text = open_metrics(pl.DataFrame({"subject": subjects, "events": range(len(subjects))}))
    assert "\r" not in text
    (family,) = text_string_to_metric_families(text)
    found = [(sample.labels["subject"], sample.value) for sample in family.samples]
    assert found == [(each.replace("\r", "\\r"), number) for number, each in enumerate(subjects)]
