"""The words of Meterline, shared by every stage: events, meters, prices, charges, invoices, journals. No I/O here."""
