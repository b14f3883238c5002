"""What the aggregation tells Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

BATCH_SECONDS = Histogram("meterline_batch_seconds", "Time that a step of a batch takes", ["step"], buckets=_SECONDS)
LINES = Counter("meterline_lines_total", "Lines of the log by what became of them", ["outcome"])
REJECTED = Counter("meterline_rejected_total", "Rejected lines by reason", ["reason"])
MISPLACED = Counter("meterline_misplaced_total", "Events outside the partition of their identity: copies go unnoticed")
STORE_RETRIES = Counter("meterline_store_retries_total", "Tries to store a batch that failed")
FRESHNESS_SECONDS = Histogram(
    "meterline_freshness_seconds", "From the append of a batch's first record to its rollups", buckets=_SECONDS
)
LAG_RECORDS = Gauge("meterline_lag_records", "Records of a partition that are not stored yet", ["partition"])
LAG_SECONDS = Gauge("meterline_lag_seconds", "How long the oldest record has waited to be stored", ["partition"])
DEDUP_KEYS = Gauge("meterline_dedup_keys", "Identities that a partition's dedup index holds", ["partition"])
DEDUP_BYTES = Gauge("meterline_dedup_bytes", "Bytes of a partition's dedup index", ["partition"])
