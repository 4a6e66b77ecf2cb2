"""How a locale says what is known: one TOML file a language, in `locales` or a team's own.

A text is a nominal phrase, as captions are: the category first, then what qualifies it, most
important first. Nothing in it has to agree with the category's gender and number, which a taxonomy
does not tell; the files say why their phrases need no agreement.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from gettext import c2py
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.descriptions import LONGEST_TEXT, StatementKind
from schemas.errors import SettingsError
from seer_model.describer.statements import Statement
from seer_model.photos.colours import COLOURS

__all__ = ["LOCALES", "Description", "Locale", "read_locale"]

LOCALES = ("de", "en", "es")
"""The languages of the package."""

_FIELDS = {
    "colour": {"colour"},
    "attribute": {"name", "value"},
    "text": {"texts"},
    "position": {"number", "count"},
}
_Phrase = Annotated[str, Field(min_length=1, max_length=200)]


class _BeforeLast(BaseModel):
    """Another word before the last item of a list, where the item matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str
    use: str


class Description(NamedTuple):
    """A text, and what it says.

    Attributes:
        text: None if nothing is known.
        statements: What the text says, in its order.
    """

    text: str | None
    statements: Sequence[Statement]


class Locale(BaseModel):
    """A language's words and phrases; `locales/en.toml` says what each is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str = Field(pattern="^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")
    plural: str
    joins: tuple[str, str]
    quotes: tuple[str, str]
    unknown: _Phrase
    colour: _Phrase
    attribute: _Phrase
    text: Annotated[tuple[_Phrase, ...], Field(min_length=1)]
    position: _Phrase
    before_last: _BeforeLast | None = None
    colours: dict[str, _Phrase]
    attributes: dict[str, _Phrase] = {}
    values: dict[str, dict[str, _Phrase]] = {}

    @field_validator("plural")
    @classmethod
    def _is_an_expression(cls, plural: str) -> str:
        c2py(plural)(1)
        return plural

    @field_validator("colours")
    @classmethod
    def _has_every_colour(cls, colours: dict[str, str]) -> dict[str, str]:
        if missing := [name for name in COLOURS if name not in colours]:
            raise ValueError(f"{missing[0]} is missing")
        return colours

    @model_validator(mode="after")
    def _phrases_have_their_fields(self) -> Self:
        phrases = [(name, getattr(self, name)) for name in ("colour", "attribute", "position")]
        phrases += [("text", phrase) for phrase in self.text]
        for name, phrase in phrases:
            if _fields(phrase) != _FIELDS[name]:
                raise ValueError(f"{name}: {phrase!r} must have {_named(_FIELDS[name])}")
        for name, phrase in self.attributes.items():
            if _fields(phrase) != {"value"}:
                raise ValueError(f"attributes, {name}: {phrase!r} must have {{value}}")
        if self.before_last is not None:
            re.compile(self.before_last.pattern)
        forms = {c2py(self.plural)(number) for number in range(200)}
        if max(forms) >= len(self.text):
            raise ValueError(f"text has {len(self.text)} forms, and plural asks for {max(forms)}")
        return self

    def describe(
        self, statements: Sequence[Statement], names: Mapping[str, str], longest: int = LONGEST_TEXT
    ) -> Description:
        """Say what is known of a photo, in at most so many characters.

        What does not fit is left out, the least important first; a category that is too long by
        itself is cut between words.

        Args:
            statements: In the order of their importance.
            names: What categories are called in this language, by id; others have none.
            longest: Characters of the text.

        Returns:
            No text if nothing but the position is known, or the category has no name.
        """
        said = [
            each
            for each in statements
            if each.kind != StatementKind.CATEGORY or each.value in names
        ]
        while any(each.kind != StatementKind.POSITION for each in said):
            text = self._compose(said, names)
            if len(text) <= longest:
                return Description(text, said)
            if len(said) == 1:
                return Description(_cut(text, longest), said)
            said.pop()
        return Description(None, ())

    def _compose(self, said: Sequence[Statement], names: Mapping[str, str]) -> str:
        by_kind = {
            kind: [each.value for each in said if each.kind == kind] for kind in StatementKind
        }
        head = [names[value] for value in by_kind[StatementKind.CATEGORY]] or [self.unknown]
        head += [
            self.colour.format(colour=self.colours[value])
            for value in by_kind[StatementKind.COLOUR]
        ]
        parts = [" ".join(head)]
        parts += [self._of_attribute(value) for value in by_kind[StatementKind.ATTRIBUTE]]
        if texts := by_kind[StatementKind.TEXT]:
            form = self.text[self._form_of(len(texts))]
            quoted = [f"{self.quotes[0]}{text}{self.quotes[1]}" for text in texts]
            parts.append(form.format(texts=self._listed(quoted)))
        for value in by_kind[StatementKind.POSITION]:
            number, _, count = value.partition("/")
            parts.append(self.position.format(number=number, count=count))
        whole = ", ".join(parts)
        return whole[:1].upper() + whole[1:]

    def _of_attribute(self, value: str) -> str:
        name, _, of_it = value.partition("=")
        called = self.values.get(name, {}).get(of_it, of_it)
        if name in self.attributes:
            return self.attributes[name].format(value=called)
        return self.attribute.format(name=name, value=called)

    def _listed(self, items: Sequence[str]) -> str:
        if len(items) == 1:
            return items[0]
        before_last = self.joins[1]
        if self.before_last and re.search(self.before_last.pattern, items[-1]):
            before_last = self.before_last.use
        return self.joins[0].join(items[:-1]) + before_last + items[-1]

    @cached_property
    def _form_of(self) -> Any:
        return c2py(self.plural)


def _fields(phrase: str) -> set[str]:
    try:
        return {name for _, name, _, _ in Formatter().parse(phrase) if name is not None}
    except ValueError as error:
        raise ValueError(f"{phrase!r}: {error}") from error


def _named(fields: set[str]) -> str:
    return " and ".join(f"{{{name}}}" for name in sorted(fields))


def _cut(text: str, longest: int) -> str:
    words = text[:longest].rpartition(" ")[0] or text[: longest - 1]
    return words.rstrip(",;: ") + "…"


def read_locale(name: str) -> Locale:
    """Read one of `LOCALES` by its name, or a file of the same form by its path.

    Raises:
        SettingsError: There is no such locale or file, or it has an unknown or wrong entry.
    """
    path = files(__package__).joinpath("locales", f"{name}.toml") if name in LOCALES else Path(name)
    try:
        return Locale.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        known = ", ".join(LOCALES)
        raise SettingsError(
            f"--locale {name}: {error.strerror}; give a file, or one of {known}"
        ) from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ", ".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise SettingsError(f"--locale {name}: {place and place + ': '}{message}") from error
    except ValueError as error:  # Not UTF-8, or not TOML.
        raise SettingsError(f"--locale {name}: not TOML: {error}") from error
