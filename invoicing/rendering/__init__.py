"""An invoice or a credit note as text, JSON, a page, a PDF file, or an e-invoice. All from one document value."""
