"""What locales say: word for word, never too long, and nothing that is not a statement."""

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.descriptions import LONGEST_TEXT, StatementKind
from schemas.errors import SettingsError
from seer_model.describer.grammar import LOCALES, read_locale
from seer_model.describer.statements import Statement
from seer_model.photos.colours import COLOURS

CATEGORY = Statement(StatementKind.CATEGORY, "aa-1", 0.95)
RED = Statement(StatementKind.COLOUR, "red", 0.7)
COTTON = Statement(StatementKind.ATTRIBUTE, "material=cotton", 0.9)
SIZE = Statement(StatementKind.ATTRIBUTE, "size=XL", 0.9)
SALE = Statement(StatementKind.TEXT, "SALE", 0.99)
INVIERNO = Statement(StatementKind.TEXT, "Invierno", 0.99)
SECOND = Statement(StatementKind.POSITION, "2/4", 1.0)
NAMES = {"en": "T-shirts", "de": "T-Shirts", "es": "Camisetas"}


def say(language: str, *statements: Statement, **changes: object) -> str | None:
    locale = read_locale(language).model_copy(update=changes)
    return locale.describe(statements, {"aa-1": NAMES[language]}).text


@pytest.mark.parametrize(
    ("language", "one", "two", "unknown"),
    [
        (
            "en",
            "T-shirts in red, made of cotton, size: XL, with the text “SALE”, photo 2 of 4",
            "T-shirts, with the texts “SALE” and “Invierno”",
            "Product in red",
        ),
        (
            "de",
            "T-Shirts in Rot, aus cotton, size: XL, mit dem Text „SALE“, Foto 2 von 4",
            "T-Shirts, mit den Texten „SALE“ und „Invierno“",
            "Artikel in Rot",
        ),
        (
            "es",
            "Camisetas de color rojo, de cotton, size: XL, con el texto «SALE», foto 2 de 4",
            "Camisetas, con los textos «SALE» e «Invierno»",
            "Producto de color rojo",
        ),
    ],
)
def test_every_statement_in_every_language(language, one, two, unknown):
    assert say(language, CATEGORY, RED, COTTON, SIZE, SALE, SECOND) == one
    assert say(language, CATEGORY, SALE, INVIERNO) == two
    assert say(language, RED) == unknown
    assert say(language, SECOND) is None, "the position alone says nothing"
    assert say(language) is None


def test_values_have_names_in_the_locale():
    values = {"material": {"cotton": "Baumwolle"}}
    assert say("de", CATEGORY, COTTON, values=values) == "T-Shirts, aus Baumwolle"


def test_spanish_y_becomes_e_before_the_sound_i_only():
    for text, word in (("Hielo", "y"), ("hijo", "e"), ("Isla", "e"), ("Yeso", "y"), ("ión", "y")):
        said = say("es", SALE, Statement(StatementKind.TEXT, text, 0.9))
        assert said == f"Producto, con los textos «SALE» {word} «{text}»"


def test_a_category_without_a_name_is_not_said():
    locale = read_locale("en")
    found = locale.describe([CATEGORY, RED], {})
    assert (found.text, [each.kind for each in found.statements]) == (
        "Product in red",
        [StatementKind.COLOUR],
    )
    assert locale.describe([CATEGORY, SECOND], {}).text is None


def test_what_does_not_fit_is_left_out_from_the_end():
    locale = read_locale("en")
    names = {"aa-1": "Word " * 22}
    found = locale.describe([CATEGORY, RED, COTTON, SALE, SECOND], names)
    assert len(found.text) <= LONGEST_TEXT
    kinds = [each.kind for each in found.statements]
    assert kinds == [StatementKind.CATEGORY, StatementKind.COLOUR]
    found = locale.describe([CATEGORY, RED], {"aa-1": "Word " * 40})
    assert found.text.endswith("Word…")
    assert len(found.text) <= LONGEST_TEXT


words = st.text(min_size=1, max_size=200)


@given(
    st.sampled_from(LOCALES),
    st.lists(
        st.one_of(
            st.builds(Statement, st.just(StatementKind.CATEGORY), st.just("aa-1"), st.just(0.9)),
            st.builds(
                Statement, st.just(StatementKind.COLOUR), st.sampled_from(COLOURS), st.just(0.9)
            ),
            st.builds(Statement, st.just(StatementKind.ATTRIBUTE), words, st.just(0.9)),
            st.builds(Statement, st.just(StatementKind.TEXT), words, st.just(0.9)),
            st.just(SECOND),
        ),
        max_size=6,
    ),
    words,
)
def test_a_text_is_short_and_says_its_statements_alone(language, statements, name):
    found = read_locale(language).describe(statements, {"aa-1": name})
    assert list(found.statements) == statements[: len(found.statements)]
    if found.text is None:
        assert not found.statements
        return
    assert 0 < len(found.text) <= LONGEST_TEXT
    if not found.text.endswith("…"):
        for each in found.statements:
            if each.kind in (StatementKind.TEXT,):
                assert each.value in found.text


def test_every_language_of_the_package_has_the_same_entries():
    read = {
        name: tomllib.loads(
            files("seer_model.describer").joinpath("locales", f"{name}.toml").read_text("utf-8")
        )
        for name in LOCALES
    }
    for name, entries in read.items():
        assert entries["language"] == name
        assert entries.keys() - {"before_last"} == read["en"].keys()
        assert entries["attributes"].keys() == read["en"]["attributes"].keys()
        assert set(entries["colours"]) == set(COLOURS)


def test_one_file_adds_a_language_with_more_plurals(tmp_path):
    polish = read_locale("en").model_dump(exclude_none=True) | {
        "language": "pl",
        "plural": "n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2",
        "joins": [", ", " i "],
        "text": ["z napisem {texts}", "z napisami {texts}", "z napisami {texts}"],
    }
    path = tmp_path / "pl.toml"
    path.write_text(_as_toml(polish), encoding="utf-8")
    found = read_locale(str(path)).describe([SALE, INVIERNO], {})
    assert found.text == "Product, z napisami “SALE” i “Invierno”"


def _as_toml(record: dict) -> str:
    def value(each: object) -> str:
        if isinstance(each, dict):
            return "{" + ", ".join(f"{k} = {value(v)}" for k, v in each.items()) + "}"
        if isinstance(each, list | tuple):
            return "[" + ", ".join(map(value, each)) + "]"
        return "'" + str(each) + "'"

    return "\n".join(f"{name} = {value(each)}" for name, each in record.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "in {color}"}, "colour: 'in {color}' must have {colour}"),
        ({"position": "photo {number}"}, "must have {count} and {number}"),
        ({"plural": "n +"}, "plural"),
        ({"plural": "n != 1 ? 2 : 0"}, "text has 2 forms, and plural asks for 2"),
        ({"colours": {"red": "rot"}}, "colours: black is missing"),
        ({"language": "../en"}, "language"),
        ({"attributes": {"material": "made"}}, "attributes, material: 'made' must have {value}"),
        ({"greeting": "hello"}, "greeting: Extra inputs are not permitted"),
        ({"text": ("with {texts", "with {texts}")}, "expected '}'"),
    ],
)
def test_mistakes_in_a_locale_are_said_in_one_line(tmp_path, change, said):
    record = read_locale("en").model_dump(exclude_none=True) | change
    path = tmp_path / "xx.toml"
    path.write_text(_as_toml(record), encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        read_locale(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_such_locale():
    with pytest.raises(SettingsError, match=r"--locale fr: No such file.*; give a file, or one of"):
        read_locale("fr")
