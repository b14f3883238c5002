"""Wallets with their lots and moves, and settlements with what was found in them.

Owns: a lot is never below zero nor above what was put into it, whoever writes. The moves of a lot are a chain: each one
names the balance that the one before it left, so two that spend the same credits can't both be there. And a payment is
settled once, by one payout.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_WALLETS = """
CREATE TABLE wallets (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    customer text NOT NULL,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    opened_at timestamptz NOT NULL,
    UNIQUE (tenant, customer, currency)
);
-- What was put into a wallet at once, for money or for nothing; what comes on top of paid credits is its own lot.
CREATE TABLE wallet_lots (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    wallet_id text COLLATE "C" NOT NULL REFERENCES wallets,
    kind text NOT NULL CHECK (kind IN ('paid', 'promotional')),
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 100),
    granted_minor bigint NOT NULL CHECK (granted_minor > 0),
    cost_minor bigint NOT NULL CHECK (cost_minor IN (0, granted_minor)),
    granted_at timestamptz NOT NULL,
    expires_at timestamptz CHECK (expires_at > granted_at),
    reference text NOT NULL,
    content_digest text NOT NULL,
    UNIQUE (id, granted_minor),
    CHECK ((kind = 'paid') = (cost_minor > 0))
);
CREATE INDEX wallet_lots_by_wallet ON wallet_lots (wallet_id);
CREATE TABLE wallet_moves (
    tenant text NOT NULL,
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
    FOREIGN KEY (lot_id, granted_minor) REFERENCES wallet_lots (id, granted_minor),
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
CREATE INDEX wallet_moves_by_invoice ON wallet_moves (invoice_id) WHERE invoice_id IS NOT NULL;
"""

_SETTLEMENTS = """
-- A payout's file as it was matched; another result of the same payout is another row, and the newest is in force.
CREATE TABLE settlements (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    payout text NOT NULL,
    file_digest text NOT NULL,
    output_digest text NOT NULL,
    settled_on date NOT NULL,
    reconciled_at timestamptz NOT NULL,
    UNIQUE (tenant, payout, ordinal)
);
CREATE TABLE settlement_matches (
    settlement_id text COLLATE "C" NOT NULL REFERENCES settlements,
    id text COLLATE "C" NOT NULL,
    tenant text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('matched', 'mismatched', 'unmatched_in_file', 'unmatched_in_ledger')),
    reason text NOT NULL,
    reference text NOT NULL,
    file_row text,
    entry_id text COLLATE "C",
    customer text NOT NULL,
    currency text NOT NULL,
    gross_minor bigint,
    fee_minor bigint,
    net_minor bigint,
    ledger_minor bigint,
    PRIMARY KEY (settlement_id, id),
    CHECK ((outcome = 'unmatched_in_ledger') = (file_row IS NULL)),
    CHECK (outcome <> 'unmatched_in_file' OR entry_id IS NULL),
    CHECK (outcome NOT IN ('mismatched', 'unmatched_in_ledger') OR entry_id IS NOT NULL),
    CHECK (outcome <> 'matched' OR gross_minor - fee_minor = net_minor)
);
CREATE TABLE settled_entries (
    entry_id text COLLATE "C" PRIMARY KEY REFERENCES journal_entries,
    tenant text NOT NULL,
    payout text NOT NULL,
    file_row text NOT NULL
);
CREATE TABLE settlement_reviews (
    match_id text COLLATE "C" NOT NULL,
    tenant text NOT NULL,
    who text NOT NULL,
    note text NOT NULL CHECK (note <> ''),
    reviewed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, match_id)
);
"""

_NEVER_CHANGES = """
DO $$
DECLARE
    rules CONSTANT text[][] := ARRAY[
        ['wallets', 'a wallet never changes'],
        ['wallet_lots', 'a lot never changes; put in another one'],
        ['wallet_moves', 'a move never changes; make another one'],
        ['settlements', 'a result never changes; reconcile again'],
        ['settlement_matches', 'a result never changes; reconcile again'],
        ['settled_entries', 'a payment is settled once'],
        ['settlement_reviews', 'a review never changes']];
    rule text[];
BEGIN
    FOREACH rule SLICE 1 IN ARRAY rules LOOP
        EXECUTE format('CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change(%L)', rule[1], rule[2]);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Add the tables of wallets and of settlements, and what holds their rules."""
    for statements in (_WALLETS, _SETTLEMENTS, _NEVER_CHANGES):
        op.execute(statements)
