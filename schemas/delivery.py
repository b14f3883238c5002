"""Words of webhooks that commands need, too. Stands by itself, so that the command line loads nothing else for them."""

from datetime import timedelta
from enum import StrEnum

OLD_SECRET_VALID = timedelta(hours=24)


class DeliveryState(StrEnum):
    """How far the delivery of an event to an endpoint is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The endpoint was deleted before it arrived."""
