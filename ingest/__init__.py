"""Usage events into the log: the HTTP gateway, and the import of files."""
