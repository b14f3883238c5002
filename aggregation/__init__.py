"""Log records to deduplicated events and rollups. One batch's way through the core is written in `fold_batch.py`."""
