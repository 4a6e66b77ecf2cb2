"""New kinds: whether listings of categories that no label shows come out as clusters of their own.

    .venv/bin/python -m benchmarks.new_kinds --data ../shared/data --backbone zoo:NAME

In the settings of `benchmarks.open_set`, the listings of the unseen categories are clustered as
`find_new_kinds` does, all at once, and compared with their labels. Whether the model would find
them unfamiliar is another question, which `benchmarks.open_set` answers. Prints Markdown.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from benchmarks.open_set import LITE0, NOWHERE, Setting, read_settings
from seer_model.evaluation.new_kinds import cluster_listings
from seer_model.tracking.registry import resolve_backbone
from seer_model.training.unseen import fit_familiarity

log = logging.getLogger("new_kinds")

SMALLEST = 5
"""The default of `find_new_kinds --smallest`."""


def measure(features: str, setting: Setting) -> str:
    """Cluster the listings of the unseen categories; returns a row of the table.

    A kind is found if it is most of a cluster; kinds too small for one do not count.
    """
    classes, taught = np.unique(setting.train.labels, return_inverse=True)
    labels = np.array(setting.given.listing_labels())
    unseen = ~np.isin(labels, [*classes, NOWHERE])
    labels = labels[unseen]
    familiarity = fit_familiarity(setting.train.vectors, taught, len(classes))
    clusters = cluster_listings(setting.given.fused()[unseen], familiarity, SMALLEST).cluster
    found, typical = set(), 0
    for cluster in range(1, clusters.max() + 1):
        kinds, counts = np.unique(labels[clusters == cluster], return_counts=True)
        typical += counts.max()
        if 2 * counts.max() > counts.sum():
            found.add(str(kinds[counts.argmax()]))
    kinds, counts = np.unique(labels, return_counts=True)
    clustered = int((clusters > 0).sum())
    return (
        f"| {features} | {setting.name} | {len(labels)} | {(counts >= SMALLEST).sum()} "
        f"| {clusters.max()} | {clustered / len(labels):.2f} | {typical / max(clustered, 1):.2f} "
        f"| {len(found)} |"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", required=True, help="as train_head's --backbone")
    arguments = parser.parse_args()
    if not (arguments.data / "grocery").is_dir():
        parser.error(f"--data {arguments.data}: no folder grocery there")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print("| features | setting | listings | kinds | clusters | in one | purity | found |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name in (arguments.backbone, LITE0):
        log.info("%s", name)
        for setting in read_settings(arguments.data, resolve_backbone(name)):
            if NOWHERE not in setting.given.labels:
                print(measure(name, setting), flush=True)


if __name__ == "__main__":
    main()
