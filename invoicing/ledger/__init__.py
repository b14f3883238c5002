"""The double-entry ledger: templates to entries, the chain over them, balances, and the closing of periods."""
