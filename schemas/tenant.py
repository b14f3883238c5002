"""Whose usage it is. Stands by itself, so that a command which only names a tenant loads nothing else."""

DEFAULT_TENANT = "default"
"""The tenant of an event that names none."""

EVENTS_PER_SECOND_MAX = 1_000_000_000
"""The highest rate that a tenant can be given."""
