"""How a migration changes the legs of a template: entries that are posted keep theirs, and are not checked again."""

import sqlalchemy as sa

from stores.migrations.ledger_templates import leg_of


def replace_legs(connection: sa.Connection, template: str, legs: str) -> None:
    """Give a template these legs, written as in `ledger_templates`, instead of those that it has."""
    connection.execute(sa.text("DELETE FROM template_legs WHERE template = :template"), {"template": template})
    connection.execute(
        sa.text("""INSERT INTO template_legs VALUES (:template, :position, :account, :account_if_negative, :amount,
                   :side, :signed, :dimension)"""),
        [{"template": template, "position": place, **leg_of(each)} for place, each in enumerate(legs.split(", "), 1)],
    )
