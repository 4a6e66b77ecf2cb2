"""Read a table of categories with PyIceberg, an engine that is not Spark.

Runs in `.venv-lake`, apart from the project: settings of the catalog and the table's name come as
JSON on standard input; the snapshots, and the rows by run and decision, go to standard output.
"""

import json
import sys
from collections import Counter

from pyiceberg.catalog import load_catalog


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    table = load_catalog("lake", **asked["settings"]).load_table(asked["table"])
    current = table.current_snapshot()
    rows = table.scan(selected_fields=("run_id", "decision")).to_arrow().to_pylist()
    counts = Counter((row["run_id"], row["decision"]) for row in rows)
    json.dump(
        {
            "current": current and str(current.snapshot_id),
            "snapshots": [
                {
                    "id": str(s.snapshot_id),
                    "run": dict(s.summary.additional_properties).get("seer.run-id"),
                }
                for s in table.snapshots()
            ],
            "rows": [[*key, count] for key, count in sorted(counts.items())],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
