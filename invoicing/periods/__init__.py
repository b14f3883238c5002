"""Periods of the books: which are closed, and which of these are open again for a time."""
