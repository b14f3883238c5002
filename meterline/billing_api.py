"""All of billing over HTTP, as a server on one machine and a deployment's gateway serve it alike."""

import sqlalchemy as sa
from starlette.routing import Route

from meterline.credit_notes_api import credit_note_routes
from meterline.invoices_api import invoice_routes
from meterline.ledger_api import ledger_routes
from meterline.manual_invoices_api import manual_invoice_routes
from meterline.settlements_api import settlement_routes
from meterline.wallets_api import wallet_routes
from meterline.webhooks_api import webhook_routes


def billing_routes(database: sa.Engine, *, private_targets: bool) -> list[Route]:
    """Invoices, credit notes, the ledger, wallets, settlements; and webhooks, to private addresses or not."""
    return [
        *credit_note_routes(database),
        *invoice_routes(database),
        *ledger_routes(database),
        *manual_invoice_routes(database),
        *settlement_routes(database),
        *wallet_routes(database),
        *webhook_routes(database, private=private_targets),
    ]
