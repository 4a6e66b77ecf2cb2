"""Telephone numbers and addresses in their disguises, and what only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seer_model.screener.text_patterns import (
    LANGUAGES,
    Pattern,
    find_pattern,
    find_phrase,
    normalise,
)


def find(text: str, pattern: Pattern, *languages: str) -> str | None:
    return find_pattern(normalise(text), pattern, languages or LANGUAGES)


@pytest.mark.parametrize(
    "text",
    [
        "Ruf mich an: 0171 2345678",
        "+49 171 / 234 56 78",
        "tel 555 0199",
        "call me 5551234567",
        "+1 (555) 010-9999",
        "WhatsApp 612 34 56 78",
        "0 171-23 45 67 8",
        "o17l 234567B",
        "Tel.876/8056020",
        "call5551234567",
        "PayPal friends0171 2345678",
        "+4006381333931",
        "".join(chr(0xFF10 + int(digit)) for digit in "01712345678"),
        "null eins sieben eins zwei drei vier fünf sechs sieben",
        "zero seven nine one two three four five six seven eight",
        "cero seis uno dos tres cuatro cinco seis siete",
    ],
)
def test_telephone_numbers(text: str) -> None:
    assert find(text, Pattern.TELEPHONE)


@pytest.mark.parametrize(
    "text",
    [
        "7 310865 004703",  # EAN-13
        "4006381333931",
        "8.99 EUR 250 g",
        "2024-11-25 12:30",
        "1.5 l 1000 mg 3,50",
        "Best before 31.12.2025 L1234567",
        "ISBN 978 3 16 148410 0",
        "art. 12345678",
        "one two buckle my shoe",
        "size 38 40 42 44 46 48",
        "lot L012345678",
        "caller 5551234567",
        "3.0123456789",
    ],
)
def test_no_telephone_numbers(text: str) -> None:
    assert find(text, Pattern.TELEPHONE) is None


@pytest.mark.parametrize(
    "text",
    [
        "name@mail.de",
        "NAME@MAIL.CO.UK",
        "name (at) mail (dot) com",
        "name at mail dot com",
        "nombre arroba correo punto es",
        "mein.name [ät] web . de",
        "n a m e @ m a i l . c o m",
    ],
)
def test_email(text: str) -> None:
    assert find(text, Pattern.EMAIL)


@pytest.mark.parametrize(
    "text", ["meet me at noon", "Me@home", "100% cotton at low price", "5 @ 3.50"]
)
def test_no_email(text: str) -> None:
    assert find(text, Pattern.EMAIL) is None


@pytest.mark.parametrize(
    "text",
    [
        "www.shop.de",
        "www . shop . de",
        "my-shop.com/x",
        "shop dot com",
        "https://t.me/abc",
        "mein-shop punkt de",
    ],
)
def test_web_addresses(text: str) -> None:
    assert find(text, Pattern.WEB_ADDRESS)


@pytest.mark.parametrize(
    "text", ["Dr. Oetker", "Nr.5", "1.5 kg", "hello.World", "St. Ives", "No.1", "a.m.", "M&M.de"]
)
def test_no_web_addresses(text: str) -> None:
    assert find(text, Pattern.WEB_ADDRESS) is None


def test_words_are_those_of_the_languages() -> None:
    assert find("nombre arroba correo punto es", Pattern.EMAIL, "en") is None
    assert find("nombre arroba correo punto es", Pattern.EMAIL, "es")
    assert find("null eins sieben eins zwei drei vier fünf sechs", Pattern.TELEPHONE, "en") is None


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("pay by PayPal friends", "PayPal", "paypal"),
        ("P a y P a l", "paypal", "p a y p a l"),
        ("P.A.Y.P.A.L", "paypal", "p.a.y.p.a.l"),
        ("\uff37esternUnion", "western union", "westernunion"),
        ("paypalace", "paypal", None),
        ("zero\u200bwidth", "zerowidth", "zerowidth"),
        ("ÜBERWEISUNG", "überweisung", "überweisung"),
    ],
)
def test_phrases(text: str, phrase: str, found: str | None) -> None:
    assert find_phrase(normalise(text), phrase) == found


@given(st.text(max_size=300), st.sampled_from(list(Pattern)))
def test_any_text_is_looked_at(text: str, pattern: Pattern) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    found = find_pattern(normal, pattern)
    assert found is None or found.strip()


@given(
    st.from_regex(r"\A01[5-7][0-9] [0-9]{7,8}\Z"),
    st.text(st.characters(categories=("Lu", "Ll", "Zs", "Po")), max_size=20),
)
def test_a_number_is_found_among_anything(number: str, before: str) -> None:
    digits = number.replace(" ", "")
    is_bar_code = len(digits) == 12
    said = f"{before} tel: {number}"
    assert is_bar_code or find(said, Pattern.TELEPHONE)
