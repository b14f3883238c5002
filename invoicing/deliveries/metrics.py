"""What the senders of webhooks tell Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter(
    "meterline_webhook_attempts_total", "Attempts to deliver a webhook, by what became of them", ["outcome"]
)
ATTEMPT_SECONDS = Histogram(
    "meterline_webhook_attempt_seconds",
    "From a webhook's first byte to the end of its answer",
    buckets=(1, 2, 5, 10, 15),
)
IN_HAND = Gauge("meterline_webhooks_in_hand", "Webhooks that this process is sending, or about to send")
