"""The books and the invoices as Parquet files for as long as the law wants them, with a manifest of hashes."""
