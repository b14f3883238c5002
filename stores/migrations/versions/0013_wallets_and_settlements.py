"""Wallets with their lots and moves, and settlements with what was found in them.

Owns: a lot, and a wallet, is never below zero, nor a lot above what was put into it, whoever writes. The moves of a lot
are a chain: each one names the balance that the one before it left, so two that spend the same credits can't both be
there. And a payment is settled once, by one payout.
"""

from alembic import op

from stores.migrations.template_changes import replace_legs
from stores.migrations.tenancy import never_change, of_tenants

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_PROMOTIONAL_LEGS = "+4090 burned wallet, -4010 subtotal feature, -1100 tender"

_WALLETS = """
CREATE TABLE wallets (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    opened_at timestamptz NOT NULL,
    balance_minor bigint NOT NULL DEFAULT 0 CONSTRAINT a_wallet_is_never_below_zero CHECK (balance_minor >= 0),
    version bigint NOT NULL DEFAULT 0, -- how often its balance moved
    UNIQUE (tenant, customer, currency),
    UNIQUE (tenant, id)
) WITH (fillfactor = 70);
-- What was put into a wallet at once, for money or for nothing; what comes on top of paid credits is its own lot.
CREATE TABLE wallet_lots (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    wallet_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('paid', 'promotional')),
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 100),
    granted_minor bigint NOT NULL CHECK (granted_minor > 0),
    granted_at timestamptz NOT NULL,
    expires_at timestamptz CHECK (expires_at > granted_at),
    invoiced boolean NOT NULL, -- an invoice asks for its price, not the gateway
    reference text COLLATE "C" NOT NULL,
    UNIQUE (tenant, id, granted_minor),
    FOREIGN KEY (tenant, wallet_id) REFERENCES wallets (tenant, id),
    CHECK (kind = 'paid' OR NOT invoiced)
);
CREATE INDEX wallet_lots_by_wallet ON wallet_lots (wallet_id);
CREATE INDEX wallet_lots_by_expiry ON wallet_lots (tenant, expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE wallet_moves (
    tenant text COLLATE "C" NOT NULL,
    lot_id text COLLATE "C" NOT NULL,
    sequence integer NOT NULL CHECK (sequence >= 0),
    kind text NOT NULL CHECK (kind IN ('grant', 'burn', 'return', 'expiry')),
    document_id text COLLATE "C" NOT NULL, -- of the invoice, or the reference of the grant or the return
    invoice_id text COLLATE "C", -- of a burn or a return
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    balance_minor bigint NOT NULL CHECK (balance_minor >= 0),
    granted_minor bigint NOT NULL,
    moved_at timestamptz NOT NULL,
    previous_sequence integer,
    previous_balance_minor bigint NOT NULL,
    PRIMARY KEY (lot_id, sequence),
    UNIQUE (lot_id, sequence, balance_minor),
    FOREIGN KEY (tenant, lot_id, granted_minor) REFERENCES wallet_lots (tenant, id, granted_minor),
    CONSTRAINT moves_are_a_chain
        FOREIGN KEY (lot_id, previous_sequence, previous_balance_minor)
        REFERENCES wallet_moves (lot_id, sequence, balance_minor),
    CONSTRAINT a_chain_begins_with_the_grant CHECK (
        (sequence = 0 AND kind = 'grant' AND previous_sequence IS NULL AND previous_balance_minor = 0
            AND amount_minor = granted_minor)
        OR (sequence > 0 AND kind <> 'grant' AND previous_sequence IS NOT NULL AND previous_sequence = sequence - 1)),
    CONSTRAINT a_balance_follows_from_the_one_before CHECK (balance_minor = previous_balance_minor + amount_minor),
    CONSTRAINT a_lot_holds_at_most_its_grant CHECK (balance_minor <= granted_minor),
    CONSTRAINT kinds_have_their_sign CHECK ((kind IN ('grant', 'return')) = (amount_minor > 0)),
    CONSTRAINT burns_are_of_an_invoice CHECK ((kind IN ('burn', 'return')) = (invoice_id IS NOT NULL))
);
CREATE INDEX wallet_moves_by_invoice ON wallet_moves (tenant, invoice_id) WHERE invoice_id IS NOT NULL;

-- The balance of a wallet follows its moves, and nobody else changes it.
CREATE FUNCTION moves_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE wallets w SET balance_minor = w.balance_minor + moved.minor, version = w.version + 1
    FROM (SELECT l.wallet_id, sum(a.amount_minor) AS minor FROM added a JOIN wallet_lots l ON l.id = a.lot_id
        GROUP BY 1) AS moved
    WHERE w.id = moved.wallet_id;
    RETURN NULL;
END $$;
CREATE TRIGGER moves_added AFTER INSERT ON wallet_moves REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION moves_added();
CREATE TRIGGER balance_follows_moves BEFORE UPDATE ON wallets FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION refuse_posted_change('the balance of a wallet follows its moves');
CREATE FUNCTION refuse_opening_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a wallet opens empty; put a lot into it' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER opens_empty BEFORE INSERT ON wallets FOR EACH ROW
    WHEN (NEW.balance_minor <> 0 OR NEW.version <> 0) EXECUTE FUNCTION refuse_opening_balance();
CREATE TRIGGER never_goes BEFORE DELETE OR TRUNCATE ON wallets FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_posted_change('a wallet never goes');
GRANT UPDATE (version) ON wallets TO meterline_app; -- to lock rows takes it; the trigger above refuses an update
"""

_SETTLEMENTS = """
-- A payout's file as it was matched; another result of the same payout is another row, and the newest is in force.
CREATE TABLE settlements (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    payout text COLLATE "C" NOT NULL,
    file_digest text NOT NULL,
    output_digest text NOT NULL,
    settled_on date NOT NULL,
    reconciled_at timestamptz NOT NULL,
    UNIQUE (tenant, payout, ordinal),
    UNIQUE (tenant, id)
);
CREATE TABLE settlement_matches (
    tenant text COLLATE "C" NOT NULL,
    settlement_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('matched', 'mismatched', 'unmatched_in_file', 'unmatched_in_ledger')),
    reason text NOT NULL,
    reference text NOT NULL,
    file_row text,
    entry_id uuid,
    dimension text NOT NULL, -- of the posting on the clearing account
    customer text NOT NULL,
    currency text NOT NULL,
    gross_minor bigint,
    fee_minor bigint,
    net_minor bigint,
    ledger_minor bigint,
    PRIMARY KEY (tenant, settlement_id, id),
    FOREIGN KEY (tenant, settlement_id) REFERENCES settlements (tenant, id),
    CHECK ((outcome = 'unmatched_in_ledger') = (file_row IS NULL)),
    CHECK (outcome <> 'unmatched_in_file' OR entry_id IS NULL),
    CHECK (outcome NOT IN ('mismatched', 'unmatched_in_ledger') OR entry_id IS NOT NULL),
    CHECK (outcome <> 'matched' OR gross_minor - fee_minor = net_minor)
);
CREATE TABLE settled_entries (
    tenant text COLLATE "C" NOT NULL,
    entry_id uuid NOT NULL,
    currency text COLLATE "C" NOT NULL,
    dimension text COLLATE "C" NOT NULL,
    payout text NOT NULL,
    file_row text NOT NULL,
    PRIMARY KEY (tenant, entry_id, currency, dimension)
);
CREATE TABLE settlement_reviews (
    tenant text COLLATE "C" NOT NULL,
    match_id text COLLATE "C" NOT NULL,
    who text NOT NULL CHECK (who <> ''),
    note text NOT NULL CHECK (note <> ''),
    reviewed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, match_id)
);
"""

_RULES = {
    "wallet_lots": "a lot never changes; put in another one",
    "wallet_moves": "a move never changes; make another one",
    "settlements": "a result never changes; reconcile again",
    "settlement_matches": "a result never changes; reconcile again",
    "settled_entries": "a payment is settled once",
    "settlement_reviews": "a review never changes",
}


def upgrade() -> None:
    """Add the tables of wallets and settlements, and what holds their rules; promotional credits may be tender."""
    for statements in (_WALLETS, _SETTLEMENTS, of_tenants("wallets", *_RULES), never_change(_RULES)):
        op.execute(statements)
    replace_legs(op.get_bind(), "P24", _PROMOTIONAL_LEGS)
