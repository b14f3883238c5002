"""What the gateway tells Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EVENTS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000)

EVENTS_ACCEPTED = Counter("meterline_gateway_events_accepted_total", "Events acknowledged: they are in the log")
EVENTS_REFUSED = Counter(
    "meterline_gateway_events_refused_total", "Events that made their request be refused, by what is wrong", ["reason"]
)
REQUESTS_REFUSED = Counter(
    "meterline_gateway_requests_refused_total",
    "Requests refused as a whole, by status and reason",
    ["status", "reason"],
)
RECEIVED_BYTES = Counter("meterline_gateway_received_bytes_total", "Bytes of bodies, as they came over the network")
APPEND_SECONDS = Histogram(
    "meterline_gateway_append_seconds",
    "Time until the log has confirmed a group of events, or has not",
    buckets=_SECONDS,
)
GROUP_EVENTS = Histogram(
    "meterline_gateway_group_events", "Events that were appended together, of all requests that waited", buckets=_EVENTS
)
QUEUE_BYTES = Gauge("meterline_gateway_queue_bytes", "Bytes of events that wait for the log to take them")
LOG_AWAY = Gauge("meterline_gateway_log_away", "1 while the log does not take events and requests are refused, else 0")
