"""The drivers: the log, ClickHouse and PostgreSQL. They store and fetch; they know no rule of metering or billing."""
