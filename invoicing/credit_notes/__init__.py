"""Credit notes: what they take of an invoice, how they are posted, and how they settle it."""
