"""How revenue recognition, wallets and reconciliation post to the books: the one door, in the form of the ledger's."""
