-- A tenant's own people at ClickHouse: dashboards and notebooks that read usage of one tenant, and no other's.
--
-- For a ClickHouse server, and an administrator of it (in docker-compose.yml: CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT: 1). Once for
-- each tenant, with its name for acme; safe to repeat:
--
--     sed 's/acme/globex/g' deploy/clickhouse-tenants.sql | clickhouse client --multiquery
--
-- Names of tenants that have keys need no escaping here. The first part is the same for all tenants.

-- 1. Meterline's own user goes on seeing everything. A table that has a policy shows nobody a row that no policy gives,
--    where users_without_row_policies_can_read_rows is off: without these, the audit would find the usage gone.
CREATE ROW POLICY OR REPLACE meterline_all ON default.events AS PERMISSIVE FOR SELECT USING 1 TO meterline;
CREATE ROW POLICY OR REPLACE meterline_all ON default.rollups AS PERMISSIVE FOR SELECT USING 1 TO meterline;
CREATE ROW POLICY OR REPLACE meterline_all ON default.duplicates AS PERMISSIVE FOR SELECT USING 1 TO meterline;

-- 2. A role for the tenant: its rows of the tables that have a tenant. Not rejections (a line that is no event is nobody's)
--    and not progress.
CREATE ROLE IF NOT EXISTS `tenant_acme`;
CREATE ROW POLICY OR REPLACE `tenant_acme` ON default.events AS PERMISSIVE FOR SELECT USING tenant = 'acme' TO `tenant_acme`;
CREATE ROW POLICY OR REPLACE `tenant_acme` ON default.rollups AS PERMISSIVE FOR SELECT USING tenant = 'acme' TO `tenant_acme`;
CREATE ROW POLICY OR REPLACE `tenant_acme` ON default.duplicates AS PERMISSIVE FOR SELECT USING tenant = 'acme' TO `tenant_acme`;
--    The policies stand before the grants, so there is no moment at which the role reads more.
GRANT SELECT ON default.events TO `tenant_acme`;
GRANT SELECT ON default.rollups TO `tenant_acme`;
GRANT SELECT ON default.duplicates TO `tenant_acme`;
--    The views of docs/querying.md read rollups as whoever asks, so the policy of rollups holds for them.
GRANT SELECT ON default.usage_hourly TO `tenant_acme`;
GRANT SELECT ON default.usage_daily TO `tenant_acme`;
GRANT SELECT ON default.usage_uniques TO `tenant_acme`;

-- 3. A user with that role alone; policies add up, so never give a user the roles of two tenants. What a dashboard asks must
--    not hold up the workers: it has a share of the memory and a minute, and cannot change that; but for the time, which
--    Grafana's plugin sets with every query. 0 would be without end.
CREATE SETTINGS PROFILE IF NOT EXISTS meterline_dashboard SETTINGS
    max_memory_usage = 500000000 CONST, max_execution_time = 60 MIN 1 MAX 120, max_threads = 2 CONST, readonly = 2 CONST;
CREATE USER IF NOT EXISTS `acme_dashboard` IDENTIFIED WITH sha256_password BY 'change-this' DEFAULT ROLE `tenant_acme`
    SETTINGS PROFILE meterline_dashboard;
GRANT `tenant_acme` TO `acme_dashboard`;

-- To take it back: DROP USER `acme_dashboard`; and, for the tenant, DROP ROW POLICY `tenant_acme` ON default.events (and each of the
-- others) only after DROP ROLE `tenant_acme`.
