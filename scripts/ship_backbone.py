"""Put a pretrained backbone into the package's zoo, in half precision, with its card.

    python -m scripts.ship_backbone OUTPUT NAME [--figures benchmarks/results/label_efficiency.json]

OUTPUT is what `jobs.pretrain_backbone --output` wrote. Rounding the weights gives them a new
digest, so figures measured on the shipped weights are added to the card by a second run.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from seer_model.backbones.backbone import load_backbone, save_backbone

ZOO = Path(__file__).parents[1] / "seer_model" / "backbones" / "zoo"
MAX_BYTES = 50_000_000


def ship(output: Path, name: str, figures: Path | None) -> str:
    """Write `zoo/NAME` and return a line that describes it.

    Raises:
        ValueError: The zoo would be too large, or the figures were measured on other weights.
    """
    trained = load_backbone(output / "backbone")
    with tempfile.TemporaryDirectory(dir=ZOO, prefix=".") as scratch:
        folder = Path(scratch) / name
        save_backbone(trained, folder, half=True)
        shipped = load_backbone(folder)
        card = (output / "card.md").read_text(encoding="utf-8")
        card = re.sub(r"(?m)^- Digest: .*$", f"- Digest: `{shipped.digest}`", card)
        if figures is not None:
            card += _table(figures, shipped.digest)
        (folder / "card.md").write_text(card, encoding="utf-8")
        others = [path for path in ZOO.glob("[!.]*/*") if path.parent.name != name]
        size = sum(path.stat().st_size for path in [*others, *folder.iterdir()])
        if size > MAX_BYTES:
            raise ValueError(
                f"the zoo would have {size:,} bytes; at most {MAX_BYTES:,} are allowed"
            )
        shutil.rmtree(ZOO / name, ignore_errors=True)
        folder.rename(ZOO / name)
    return f"zoo:{name}: {shipped.architecture}, digest {shipped.digest}, zoo of {size:,} bytes"


def _table(figures: Path, digest: str) -> str:
    record = json.loads(figures.read_text(encoding="utf-8"))
    if record["digest"] != digest:
        raise ValueError(f"{figures}: measured on backbone {record['digest']}, not on {digest}")
    return f"\n## Label efficiency\n\n{record['markdown']}\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("name")
    parser.add_argument("--figures", type=Path, default=None)
    arguments = parser.parse_args()
    try:
        summary = ship(arguments.output, arguments.name, arguments.figures)
    except ValueError as error:
        sys.exit(f"ship_backbone: {error}")
    sys.stdout.write(f"{summary}\n")


if __name__ == "__main__":
    main()
