"""Polls a table with PyIceberg, in `.venv-lake`, and writes down the rows by run, read by read.

Settings of the catalog and the table's name come as JSON in the first argument. A line of standard
output is a read: JSON of run to rows. It ends with its standard input, after one more read.
"""

import json
import select
import sys
from collections import Counter

from pyiceberg.catalog import load_catalog


def main() -> None:
    asked = json.loads(sys.argv[1])
    catalog = load_catalog("lake", **asked["settings"])
    over = False
    while True:
        rows = catalog.load_table(asked["table"]).scan(selected_fields=("run_id",)).to_arrow()
        sys.stdout.write(json.dumps(Counter(rows["run_id"].to_pylist())) + "\n")
        sys.stdout.flush()
        if over:
            return
        over = bool(select.select([sys.stdin], [], [], 0.02)[0])


if __name__ == "__main__":
    main()
