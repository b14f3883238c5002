"""Charges become invoices, and invoices become entries in a double-entry ledger."""
