"""Put a pretrained backbone into the package's zoo, in half precision, with its card.

    python -m scripts.ship_backbone OUTPUT NAME [--figures benchmarks/results/label_efficiency.json]

OUTPUT is what `jobs.pretrain_backbone --output` wrote. The weights get a digest of their own when
they are rounded. Figures measured on the shipped weights are added to the card by a second run.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from seer_model.backbone import load_backbone, save_backbone

ZOO = Path(__file__).parents[1] / "seer_model" / "zoo"
MOST_BYTES = 12_000_000


def ship(output: Path, name: str, figures: Path | None) -> str:
    """Write `zoo/NAME`; returns what to say.

    Raises:
        ValueError: The zoo would be too large, or the figures are of other weights.
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
        others = [path for path in ZOO.glob("[!.]*/*.safetensors") if path.parent.name != name]
        size = sum(path.stat().st_size for path in [*others, *folder.glob("*.safetensors")])
        if size > MOST_BYTES:
            raise ValueError(f"the zoo would be of {size:,} bytes; {MOST_BYTES:,} at most")
        shutil.rmtree(ZOO / name, ignore_errors=True)
        folder.rename(ZOO / name)
    return f"zoo:{name}: {shipped.architecture}, digest {shipped.digest}, zoo of {size:,} bytes"


def _table(figures: Path, digest: str) -> str:
    record = json.loads(figures.read_text(encoding="utf-8"))
    if record["digest"] != digest:
        raise ValueError(f"{figures}: of a backbone {record['digest']}, not {digest}")
    return f"\n## Label efficiency\n\n{record['markdown']}\n"


def main() -> None:
    """Ship one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("name")
    parser.add_argument("--figures", type=Path, default=None)
    arguments = parser.parse_args()
    try:
        said = ship(arguments.output, arguments.name, arguments.figures)
    except ValueError as error:
        sys.exit(f"ship_backbone: {error}")
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
