"""SQL that migrations share: who sees which rows of a new table, and which tables never change."""


def of_tenants(*tables: str) -> str:
    """Who acts for a tenant sees and adds that tenant's rows of these tables alone, by the role that 0008 made."""
    return "\n".join(
        f"""
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_tenant ON {table}
    USING (tenant = (SELECT current_setting('meterline.tenant', true)))
    WITH CHECK (tenant = (SELECT current_setting('meterline.tenant', true)));
GRANT SELECT, INSERT ON {table} TO meterline_app;"""
        for table in tables
    )


def never_change(reasons: dict[str, str]) -> str:
    """Rows of these tables are neither changed nor deleted; the reason is what somebody who tries is told."""
    return "\n".join(
        f"""
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('{reason}');"""
        for table, reason in reasons.items()
    )
