r"""The rules of a screening: a TOML file of a trust-and-safety team.

[unreadable]                 # photos that cannot be read
action = "review"
photos = "all"               # of a listing; or "any"

[[text]]                     # any number of these
name = "telephone"
action = "review"
pattern = "telephone"        # telephone, email or web_address
languages = ["en", "de"]     # whose words for digits, "at" and "dot" are undone; default: all

[[text]]
name = "payment elsewhere"
action = "block"
phrases = ["western union", "paypal friends"]

[[text]]
name = "article number"
action = "review"
regex = "art\\.? ?nr\\.? ?[0-9]{4,}"   # of the text in lower case, with single blanks
least_share = 0.01           # of the photo's area, by the lines that it is in

[[text]]
name = "screenshot or meme"
action = "review"
least_share = 0.25           # without a pattern: of all its text

[[concept]]                  # takes the place of all thresholds that the model has for a concept
name = "weapon"
action = "block"             # review, block, or allow to ignore the concept
least_score = 0.95           # a probability; default: the model's threshold for the action
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import SettingsError
from schemas.screening import Action
from seer_model.backbones.embedder import TextLine
from seer_model.screener.text_patterns import (
    LANGUAGES,
    Pattern,
    find_pattern,
    find_phrase,
    normalise,
)

__all__ = ["ConceptRule", "Rules", "TextMatch", "TextRule", "Unreadable", "read_rules"]

_LONGEST_TEXT = 20_000
"""Characters of a photo's text that rules look at: a bound on the work of a regular expression."""

_FEWEST_LETTERS = 3

_Action = Literal[Action.REVIEW, Action.BLOCK]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Unreadable(_Section):
    """What to do with a listing whose photos cannot be read.

    Attributes:
        action: For the listing.
        photos: If `all` of its photos cannot be read, or `any`.
    """

    action: Action = Action.REVIEW
    photos: Literal["all", "any"] = "all"


class TextMatch(NamedTuple):
    """What a rule found in a photo's text.

    Attributes:
        evidence: What was read.
        score: How sure the reader is of the least sure line of it, up to 1.
    """

    evidence: str
    score: float


class TextRule(_Section):
    """A rule for what is written in a photo."""

    name: str = Field(min_length=1, max_length=100)
    action: _Action
    pattern: Pattern | None = None
    phrases: tuple[str, ...] = ()
    regex: str | None = None
    languages: tuple[str, ...] = LANGUAGES
    least_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.6

    @field_validator("languages")
    @classmethod
    def _are_known(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(languages) - set(LANGUAGES):
            raise ValueError(f"{', '.join(sorted(unknown))} is none of {', '.join(LANGUAGES)}")
        return languages

    @field_validator("phrases")
    @classmethod
    def _have_letters(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if blank := [phrase for phrase in phrases if not re.search(r"\w", normalise(phrase))]:
            raise ValueError(f"{blank[0]!r} has neither letter nor digit")
        return phrases

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        try:
            if regex is not None:
                re.compile(regex)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return regex

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        ways = [bool(self.pattern), bool(self.phrases), self.regex is not None]
        if sum(ways) > 1:
            raise ValueError("has several of pattern, phrases and regex; make a rule of each")
        if not any(ways) and not self.least_share:
            raise ValueError("has none of pattern, phrases, regex and least_share")
        return self

    def find(self, lines: Sequence[TextLine]) -> TextMatch | None:
        """Look for it in the lines of a photo, from top to bottom."""
        lines = [line for line in lines if line.score >= self.least_score]
        if self.pattern is None and not self.phrases and self.regex is None:
            lines = [line for line in lines if _is_text(line.line)]
        texts = [normalise(line.line) for line in lines]
        if not any(texts):
            return None
        text, bounds = "", []
        for each in texts:
            bounds.append(len(text))
            text = (text + each + " ")[:_LONGEST_TEXT]
        found, start, end = self._find(text)
        if found is None:
            return None
        within = [
            line
            for line, first, each in zip(lines, bounds, texts, strict=True)
            if first < end and first + len(each) > start
        ]
        if sum(line.share for line in within) < self.least_share:
            return None
        return TextMatch(found, min((line.score for line in within), default=0.0))

    def _find(self, text: str) -> tuple[str | None, int, int]:
        """What stands there, and from where to where the lines are that have it."""
        if self.pattern is not None:
            found = find_pattern(text, self.pattern, self.languages)
        elif self.phrases:
            all_found = (find_phrase(text, phrase) for phrase in self.phrases)
            found = next((each for each in all_found if each is not None), None)
        elif self.regex is not None:
            match = re.search(self.regex, text)
            found = match[0] if match else None
        else:
            return (text.strip() or None), 0, len(text)
        start = text.find(found) if found else 0
        # Where a disguise was undone, what was found does not stand there as it is.
        return (found, 0, len(text)) if start < 0 else (found, start, start + len(found or ""))


def _is_text(line: str) -> bool:
    """Whether a line is more than a stripe or a button that was read as a letter or two."""
    return sum(letter.isalnum() for letter in line) >= _FEWEST_LETTERS


class ConceptRule(_Section):
    """What to do with a concept, in place of the thresholds of the model.

    Attributes:
        name: The concept's.
        action: `allow` ignores it.
        least_score: The probability from which on; None for the model's threshold for the action.
    """

    name: str = Field(min_length=1, max_length=100)
    action: Action
    least_score: Annotated[float, Field(gt=0, le=1)] | None = None


class Rules(_Section):
    """All rules of a screening."""

    unreadable: Unreadable = Unreadable()
    text: tuple[TextRule, ...] = ()
    concept: tuple[ConceptRule, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [rule.name for rule in self.text]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rules are named {min(twice)!r}")
        actions = [(rule.name, rule.action) for rule in self.concept]
        if again := {each for each in actions if actions.count(each) > 1}:
            name, action = min(again)
            raise ValueError(f"two rules say {action} for the concept {name!r}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the rules say, however the file is written."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_rules(path: Path | None) -> Rules:
    """Read a file of rules; None for the package's own `rules.toml`, which blocks nothing.

    Raises:
        SettingsError: There is no such file, it is not TOML, or it has an unknown or wrong entry.
    """
    where = path or "rules.toml"
    try:
        text = (path or files(__package__).joinpath("rules.toml")).read_text(encoding="utf-8")
        content: dict[str, Any] = tomllib.loads(text)
        return Rules.model_validate(content)
    except OSError as error:
        raise SettingsError(f"--rules {where}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"--rules {where}: {_first_problem(error, content)}") from error
    except ValueError as error:  # Not UTF-8, or not TOML.
        raise SettingsError(f"--rules {where}: not TOML: {error}") from error


def _first_problem(error: ValidationError, content: dict[str, Any]) -> str:
    problem = error.errors(include_url=False)[0]
    place = [str(part) for part in problem["loc"]]
    if place[0:1] in (["text"], ["concept"]) and len(place) > 1:
        named = content[place[0]][int(place[1])].get("name", f"number {int(place[1]) + 1}")
        place = [f"rule {named!r}", *place[2:]]
    message = problem["msg"].removeprefix("Value error, ")
    return " ".join(filter(None, [", ".join(place) + ":" if place else "", message]))
