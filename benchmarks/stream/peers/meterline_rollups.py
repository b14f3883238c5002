"""The rollups that a stopped worker has left in a directory, as CSV.

python meterline_rollups.py DIRECTORY RESULT
"""

import sys
from pathlib import Path

from stores.clickhouse import open_embedded, query

ROLLUPS = """
    SELECT subject, dimensions['region'] AS region, formatDateTime(window_start, '%Y-%m-%dT%H') AS hour,
           toInt64(sum(count)) AS count, toInt64(sum(sum)) AS sum
    FROM rollups GROUP BY subject, region, hour
"""

if __name__ == "__main__":
    client = open_embedded(Path(sys.argv[1]))
    query(client, ROLLUPS).write_csv(sys.argv[2])
    client.close()
