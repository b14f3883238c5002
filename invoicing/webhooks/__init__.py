"""Webhooks: domain events, sent to the endpoints that tenants name, signed and tried again until they arrive."""
