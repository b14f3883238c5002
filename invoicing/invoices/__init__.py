"""Invoices: their lines, their totals, their numbers and states, and how they are posted."""
