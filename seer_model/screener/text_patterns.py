"""What sellers write into photos to be reached outside the marketplace, in its disguises.

A text is normalised first: compatibility forms (fullwidth, superscript), case, and marks that do
not show. Then each pattern undoes the disguises that go with it: words and brackets for `@` and
`.`, letters for digits, digits as words, blanks between everything.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

__all__ = ["LANGUAGES", "Pattern", "find_pattern", "find_phrase", "normalise"]


class Pattern(StrEnum):
    """What can be found by name."""

    TELEPHONE = "telephone"
    EMAIL = "email"
    WEB_ADDRESS = "web_address"


_AT = {
    "en": ("at",),
    "de": ("at", "ät", "klammeraffe"),
    "es": ("arroba", "at"),
    "fr": ("arobase", "at"),
    "it": ("chiocciola", "at"),
}
_DOT = {
    "en": ("dot", "point"),
    "de": ("punkt", "dot"),
    "es": ("punto", "dot"),
    "fr": ("point", "dot"),
    "it": ("punto", "dot"),
}
_DIGITS = {
    "en": "zero one two three four five six seven eight nine",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
}
LANGUAGES = tuple(_DIGITS)
"""Languages whose words for `@`, `.` and the digits are known."""

_CALL = (
    r"tel|telefon|telephone|telefono|teléfono|téléphone|phone|call|mobile?|mob|handy|whats ?app|wa"
    r"|signal|viber|telegram|sms|text me|ruf|anruf\w*|llama\w*|appel\w*|chiama\w*"
)
# What reading mistakes for a digit, or a seller writes for one.
_LOOKALIKES = str.maketrans("oöilzsb", "0011258")
_IN_NUMBERS = frozenset("0123456789oöilzsb().+/")
_TOP_LEVELS = (
    "com|net|org|info|biz|shop|store|online|site|app|dev|io|co|me|tv|eu|de|at|ch|es|fr|it|pt|nl|be"
    "|uk|ie|pl|cz|se|no|dk|fi|ru|ua|tr|gr|ro|hu|us|ca|mx|br|ar|cl|pe|in|cn|jp|kr|au|nz|za|link|ly"
)
# Bounded, so that a text made for it cannot take long (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4).
_NAME = r"(?<![\w.+-])[\w.+-]{1,64}"
_LABEL = r"[\w-]{2,63}"
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15  # ITU-T E.164 allows 15.
_EAN_DIGITS = frozenset({8, 12, 13, 14})


def normalise(text: str) -> str:
    """Bring a text into the one form that patterns and phrases are written in.

    Returns:
        NFKC, in lower case, without marks that do not show, with single blanks and plain dashes.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c in "\n\t")
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    return re.sub(r"\s+", " ", text).strip()


def find_phrase(text: str, phrase: str) -> str | None:
    """Find a phrase in a normalised text, also with blanks, dots or dashes between its letters.

    A phrase in one word is not found inside of a longer one.

    Args:
        text: From `normalise`.
        phrase: Any text.

    Returns:
        What stands there, or None.
    """
    letters = [re.escape(letter) for letter in normalise(phrase) if not letter.isspace()]
    if not letters:
        return None
    found = re.search(rf"(?<!\w){'[ ._*-]*'.join(letters)}(?!\w)", text)
    return found[0] if found else None


def find_pattern(text: str, pattern: Pattern, languages: Sequence[str] = LANGUAGES) -> str | None:
    """Find a telephone number or an address in a normalised text.

    Args:
        text: From `normalise`.
        pattern: What to find.
        languages: Of `LANGUAGES`, whose words are undone.

    Returns:
        What stands there, or None.
    """
    return next(_FINDERS[pattern](text, languages), None)


def _telephones(text: str, languages: Sequence[str]) -> Iterator[str]:
    """Runs of seven to fifteen digits that start like a number, or that a word announces.

    Others are prices, sizes and bar codes: those of goods are 8, 12, 13 or 14 digits with a right
    check digit (GS1 General Specifications, 7.9).
    """
    said = _with_digits(text, languages)
    for found in re.finditer(r"(?<!\d)(?<!\d[.,])(\+|00)?[ (]*\d(?:[ ()./-]{0,3}\d)+", said):
        digits = re.sub(r"\D", "", found[0])
        if not _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS:
            continue
        before = said[: found.start()]
        announced = re.search(rf"\b(?:{_CALL})(?![^\W\d_])[^\d+]{{0,20}}$", before)
        international = found[1] == "+"
        national = (
            digits.startswith("0")
            and len(digits) >= 9
            # As of a lot; a word may stand so near that it is read as one with the number.
            and not re.search(r"(?<![^\W\d_])[^\W\d_]{1,3}$", before)
            and not _is_bar_code(digits)
        )
        if announced or international or national:
            yield found[0].strip()


def _with_digits(text: str, languages: Sequence[str]) -> str:
    """Write digits for the words of a run of them, and for letters in a word that has digits."""
    words = {
        word: str(digit)
        for language in languages
        for digit, word in enumerate(_DIGITS[language].split())
    }
    parts = re.split(r"(\s+|-)", text)
    is_digit = [part in words or part.isdigit() for part in parts]
    for place, part in enumerate(parts):
        beside = is_digit[max(0, place - 2) : place] + is_digit[place + 1 : place + 3]
        if part in words and any(beside):
            parts[place] = words[part]
        elif _is_half_digits(part):
            parts[place] = part.translate(_LOOKALIKES)
    return "".join(parts)


def _is_half_digits(word: str) -> bool:
    digits = sum(letter.isdigit() for letter in word)
    return len(word) > 2 and 2 * digits >= len(word) and not set(word) - _IN_NUMBERS


def _is_bar_code(digits: str) -> bool:
    if len(digits) not in _EAN_DIGITS:
        return False
    weighted = (int(d) * (3 if place % 2 else 1) for place, d in enumerate(reversed(digits)))
    return sum(weighted) % 10 == 0


def _emails(text: str, languages: Sequence[str]) -> Iterator[str]:
    """A name, an at-sign or a word for it, and a domain."""
    plain = rf"{_NAME} ?@ ?{_LABEL}(?: ?\. ?{_LABEL}){{0,4}} ?\. ?(?:{_TOP_LEVELS})\b"
    at, dot = _words(_AT, languages), _words(_DOT, languages)
    sign = rf"(?: ?[(\[{{<] ?(?:{at}|@) ?[)\]}}>] ?| (?:{at}) )"
    stop = rf"(?: ?[(\[{{<] ?(?:{dot}|\.) ?[)\]}}>] ?| (?:{dot}) | ?\. ?)"
    disguised = rf"{_NAME}{sign}{_LABEL}(?:{stop}{_LABEL}){{0,4}}{stop}(?:{_TOP_LEVELS})\b"
    for pattern in (plain, disguised):
        yield from (found[0] for found in re.finditer(pattern, text))
    if "@" in text:  # Letters with blanks between them.
        yield from (found[0] for found in re.finditer(plain, text.replace(" ", "")))


def _web_addresses(text: str, languages: Sequence[str]) -> Iterator[str]:
    """A domain, with or without `www`; its dots may be words."""
    dot = _words(_DOT, languages)
    stop = rf"(?: ?[(\[{{<] ?(?:{dot}) ?[)\]}}>] ?| (?:{dot}) )"
    patterns = (
        r"\b(?:https?|hxxps?) ?:? ?// ?\S+",
        rf"\bwww ?[.,] ?{_LABEL} ?[.,] ?(?:{_TOP_LEVELS})\b\S*",
        rf"(?<![\w@.-]){_LABEL}(?:\.{_LABEL}){{0,4}}\.(?:{_TOP_LEVELS})\b(?!\.?\w)(?:/\S*)?",
        rf"(?<![\w@.-]){_LABEL}{stop}(?:com|net|org|de|es|fr|it|shop|store|info)\b",
    )
    for pattern in patterns:
        yield from (found[0] for found in re.finditer(pattern, text))


def _words(by_language: Mapping[str, tuple[str, ...]], languages: Sequence[str]) -> str:
    return "|".join(sorted({word for each in languages for word in by_language[each]}))


_FINDERS: dict[Pattern, Callable[[str, Sequence[str]], Iterator[str]]] = {
    Pattern.TELEPHONE: _telephones,
    Pattern.EMAIL: _emails,
    Pattern.WEB_ADDRESS: _web_addresses,
}
