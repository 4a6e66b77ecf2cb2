"""Accuracy lost by decoding JPEGs at reduced scale.

    .venv/bin/python -m benchmarks.scaled_decode --data ../shared/data

Embeds the grocery photos (240 pixels on the short side) at 112 pixels twice: as the jobs do, where
libjpeg decodes them at 1/2, and from a lossless copy decoded at full scale. Trains and tests a
linear probe on each. 112 is the hardest case, since the decoded photo is hardly larger than the
backbone's input.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np

from benchmarks.label_efficiency import Extractor, best_strength, probe, read_photos
from seer_model.backbones.constants import DEFAULT_BACKBONE
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.weights import make_backbone
from seer_model.tracking.registry import resolve_backbone

IMAGE_SIZE = 112
GOAL = 0.002


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="holds grocery/")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="as train_head takes it")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/scaled_decode.json")
    )
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    found = resolve_backbone(arguments.backbone)
    backbone = make_backbone(
        found.architecture,
        Preprocessing(image_size=IMAGE_SIZE),
        licence=found.licence,
        origin=found.origin,
        weights=found.weights,
        feature_stages=found.feature_stages,
    )
    splits = read_photos(arguments.data / "grocery")
    extractor = Extractor(backbone)
    top1, answers = {}, []
    for decoding, degrade in (("scaled", None), ("full", lambda image: image)):
        logging.info("decoding: %s", decoding)
        train, val, test = (
            extractor.features(splits[name], degrade) for name in ("train", "val", "test")
        )
        labels = splits["train"].labels
        fitted = probe(train, labels, best_strength(train, labels, val, splits["val"].labels))
        answers.append(fitted.predict(test))
        top1[decoding] = float(np.mean(answers[-1] == splits["test"].labels))
    figures = {
        "backbone": f"{backbone.architecture}: {backbone.origin}",
        "image_size": IMAGE_SIZE,
        "photos": len(answers[0]),
        "top1": top1,
        "difference": top1["scaled"] - top1["full"],
        "goal": GOAL,
        "same_answer": float(np.mean(answers[0] == answers[1])),
    }
    print(json.dumps(figures, indent=1))
    arguments.results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
