"""The outbox: what happened in billing, stored with its effect and told to others afterwards."""
