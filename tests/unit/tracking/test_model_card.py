"""Model cards: their content, and untrusted text quoted as it is."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from schemas.taxonomy import Category, Taxonomy
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration
from seer_model.linear_head import LinearHead
from seer_model.tracking.card import backbone_card, bundle_card, code_span
from seer_model.training.fit import FittedBundle

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://tracker.example/pixel.png)",
    "https://phishing.example",
    "`` | `code` | </code></li></ul><b>bold</b>",
    "# Heading\n\n---\n\n```sh\nrm -rf /\n```",
    "**bold** _it_ ~~gone~~ &lt;b&gt; \\",
)


class Page(HTMLParser):
    """Rendered Markdown: its tags, and the texts of its code."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.codes: list[str] = []
        self._in_code = False
        parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.feed(parser.render(markdown))
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "code":
            self._in_code = True
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.codes[-1] += data


@pytest.fixture
def bundle(fitted: FittedBundle) -> Bundle:
    training = {
        "manifest": "s3://shop/manifest",
        "ds": None,
        "embedded_on": {"cpu": 15000},
        "listings": 7200,
        "photos": 15000,
        "fingerprint": "f" * 64,
        "val": {"listings": 1200.0, "top1": 0.61234, "calibration_error": 0.0213},
    }
    calibration = Calibration(1.25, (0.5, None, 0.875), 0.9)
    return replace(fitted.bundle, training=training, calibration=calibration, digest="d" * 64)


def test_card_of_a_bundle(bundle: Bundle) -> None:
    card = bundle_card(bundle)
    for part in (
        "# Listing categorizer: 6 classes",
        "version `2026-01`, 12 categories",
        bundle.tree.taxonomy.digest,
        bundle.digest,
        bundle.backbone.digest,
        "`random weights (seed 0), never trained`",
        "Licence of the weights: `apache-2.0`\n",
        f"Embeddings: {bundle.backbone.width} features, of photos of 64 pixels",
        "for a precision of\n0.9, with temperature 1.25",
        "| 1 | 3 | 0.500 |\n| 2 | 4 | never |\n| 3 | 5 | 0.875 |",
        "- `listings`: 1200\n- `top1`: 0.6123\n- `calibration_error`: 0.0213\n",
        '- `manifest`: `s3://shop/manifest`\n- `embedded_on`: `{"cpu": 15000}`\n',
        "- `listings`: `7200`\n- `photos`: `15000`\n",
        f"- `fingerprint`: `{'f' * 64}`",
        "- `Apparel > Shoes > Boots`\n",
        "mlflow models serve",
        "read_image_uris",
    ):
        assert part in card
    assert "`val`: " not in card
    assert {"h1", "h2", "ul", "table", "pre"} <= Page(card).tags


def test_the_worst_groups_are_in_the_card(bundle: Bundle) -> None:
    group = {
        "slice": "region",
        "worst": "a|b",
        "listings": 40,
        "top1": 0.5,
        "top1_interval": [0.321, 0.679],
        "best": "eu",
        "best_top1": 0.9,
        "small": 3,
        "gap": {"value": 0.4, "low": 0.151, "high": 0.594},
    }
    card = bundle_card(replace(bundle, training={**bundle.training, "worst_groups": [group]}))
    row = "| `region` | `a/b` | 40 | 0.500 (0.321 to 0.679) | `eu` | 0.400 (0.151 to 0.594) | 3 |"
    assert row in card
    assert "`worst_groups`" not in card
    assert "no slice has two groups" in bundle_card(bundle)


def test_a_bundle_without_training_record_says_so(bundle: Bundle) -> None:
    card = bundle_card(replace(bundle, training={}))
    assert "## Figures on the listings it was calibrated on\n\nNone recorded." in card
    assert "## Training\n\nNothing recorded." in card


def test_a_licence_that_may_forbid_commerce_stands_out(bundle: Bundle) -> None:
    backbone = replace(bundle.backbone, licence="seer-license")
    warning = "`seer-license`, **not known to allow commercial use**"
    assert warning in bundle_card(replace(bundle, backbone=backbone))
    assert warning in backbone_card(backbone)
    assert "not known" not in backbone_card(bundle.backbone)


def test_many_classes_are_counted(bundle: Bundle) -> None:
    top = Category("top", ("Top",), None)
    below = [Category(f"c{n}", ("Top", f"Name {n}"), "top") for n in range(500)]
    names = [category.category_id for category in below]
    tree = ClassTree(Taxonomy([top, *below], "big"), names)
    head = LinearHead(np.zeros((500, bundle.head.weight.shape[1]), np.float32), np.zeros(500))
    calibration = Calibration(1.0, (None, 0.9), 0.9)
    card = bundle_card(replace(bundle, tree=tree, head=head, calibration=calibration))
    assert card.count("- `Top > Name") == 30
    assert "- and 470 more, in `bundle.json`" in card


def test_hostile_names_are_shown_literally(bundle: Bundle) -> None:
    tops = [Category(f"c{n}", (name,), None) for n, name in enumerate(HOSTILE)]
    tree = ClassTree(Taxonomy(tops, HOSTILE[0]), [top.category_id for top in tops])
    backbone = replace(bundle.backbone, licence=HOSTILE[1], origin=HOSTILE[2])
    training = {"manifest": HOSTILE[4], HOSTILE[5]: HOSTILE[6], "val": {HOSTILE[3]: HOSTILE[7]}}
    hostile = Bundle(
        backbone, bundle.head, tree, Calibration(1.0, (0.5,), 0.9), training, bundle.digest
    )
    page = Page(bundle_card(hostile))
    assert page.tags == Page(bundle_card(bundle)).tags | {"strong"}
    for name in HOSTILE:
        assert " ".join(name.split()) in page.codes
    assert {"script", "img", "a", "b"}.isdisjoint(page.tags)


@given(st.text(max_size=150))
def test_any_text_is_one_span_of_code(text: str) -> None:
    page = Page(f"- before {code_span(text)} after")
    assert page.tags == {"ul", "li", "code"}
    (shown,) = page.codes
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert shown == (line if 0 < len(line) <= 120 else f"{line[:119]}…" if line else " ")
