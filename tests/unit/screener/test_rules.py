"""A file of rules: what it may say, how it is refused, and what it finds in lines of text."""

from pathlib import Path

import pytest

from schemas.errors import SettingsError
from schemas.screening import Action
from seer_model.backbones.embedder import TextLine
from seer_model.screener.rules import Rules, TextRule, read_rules


def rule(**fields: object) -> TextRule:
    return TextRule.model_validate({"name": "r", "action": "review", **fields})


def lines(*texts: str, share: float = 0.05, score: float = 0.95) -> list[TextLine]:
    return [TextLine(text, score, share) for text in texts]


def evidence(found: TextRule, *texts: str, **line: float) -> str | None:
    match = found.find(lines(*texts, **line))
    return match and match.evidence


def test_the_default_rules_send_to_review_and_block_nothing() -> None:
    rules = read_rules(None)
    assert rules.unreadable.action == Action.REVIEW
    assert {rule.action for rule in rules.text} == {Action.REVIEW}
    found = {each.name for each in rules.text if each.find(lines("WhatsApp 0171 2345678"))}
    assert found == {"telephone", "contact elsewhere"}
    assert not [each.name for each in rules.text if each.find(lines("100 % cotton", "Größe 38"))]


def test_a_number_across_two_lines_is_found() -> None:
    found = rule(pattern="telephone").find(
        [TextLine("call 0171", 0.9, 0.1), TextLine("2345678", 0.7, 0.1)]
    )
    assert found is not None
    assert found.score == 0.7


def test_each_way_to_look() -> None:
    assert (
        evidence(rule(phrases=["Western Union", "PayPal"]), "pay", "p a y p a l") == "p a y p a l"
    )
    assert evidence(rule(regex=r"art\. ?nr\.? ?\d{4}"), "Art. Nr. 4711") == "art. nr. 4711"
    assert evidence(rule(pattern="web_address"), "www.shop.de") == "www.shop.de"


def test_share_of_the_photo_that_the_text_has_to_take() -> None:
    small = rule(phrases=["sale"], least_share=0.1)
    assert evidence(small, "sale", share=0.05) is None
    assert evidence(small, "sale", share=0.2) == "sale"
    # The other lines' shares do not count for a phrase, and they do for a rule without one.
    assert evidence(small, "sale", "big red letters", share=0.06) is None
    mostly_text = rule(least_share=0.1)
    assert evidence(mostly_text, "some words", "and more", share=0.06) == "some words and more"
    assert evidence(mostly_text, "some words", share=0.06) is None
    assert evidence(mostly_text, "c", share=0.9) is None, "a shape that was read as a letter"


def test_what_the_reader_is_not_sure_of_does_not_count() -> None:
    assert evidence(rule(phrases=["sale"]), "sale", score=0.55) is None
    assert evidence(rule(phrases=["sale"], least_score=0.5), "sale", score=0.55) == "sale"


def test_no_text_no_finding() -> None:
    assert rule(least_share=0.1).find([]) is None
    assert rule(regex=".*").find(lines("   ")) is None


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text = 1\n[", "not TOML"),
        ('[[text]]\nname = "a"\n', "rule 'a', action: Field required"),
        ('[[text]]\naction = "review"\nregex = "x"\n', "rule 'number 1', name"),
        ('[[text]]\nname = "a"\naction = "allow"\nregex = "x"\n', "rule 'a', action"),
        ('[[text]]\nname = "a"\naction = "block"\nregex = "("\n', "is no regular expression"),
        ('[[text]]\nname = "a"\naction = "block"\n', "has none of pattern, phrases"),
        (
            '[[text]]\nname = "a"\naction = "block"\nregex = "x"\nphrases = ["y"]\n',
            "has several of pattern",
        ),
        (
            '[[text]]\nname = "a"\naction = "block"\nphrases = ["--"]\n',
            "has neither letter nor digit",
        ),
        (
            '[[text]]\nname = "a"\naction = "block"\npattern = "email"\nlanguages = ["xx"]\n',
            "xx is none of en, de",
        ),
        ('[[text]]\nname = "a"\naction = "block"\nphrase = "y"\n', "rule 'a', phrase: Extra"),
        ('[[words]]\nname = "a"\n', "words: Extra"),
        (2 * '[[text]]\nname = "a"\naction = "block"\nregex = "x"\n', "two rules are named 'a'"),
        ('[unreadable]\nphotos = "some"\n', "unreadable, photos"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_rules(write(tmp_path, text))
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"--rules {tmp_path / 'rules.toml'}: ")
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_rules(tmp_path / "none.toml")


def test_the_digest_is_of_what_the_rules_say(tmp_path: Path) -> None:
    one = read_rules(write(tmp_path, '[[text]]\nname = "a"\naction = "block"\nregex = "x"\n'))
    same = read_rules(
        write(tmp_path, '# again\n[[text]]\nregex = "x"\naction = "block"\nname = "a"\n')
    )
    other = read_rules(write(tmp_path, '[[text]]\nname = "a"\naction = "review"\nregex = "x"\n'))
    assert one.digest == same.digest != other.digest
    assert Rules().text == ()
