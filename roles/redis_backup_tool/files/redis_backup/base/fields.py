"""Strict reading of JSON objects: every key is known, every value has its type, every complaint
names the place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .errors import ToolError

# Names that become directories, rsync modules and parts of ids: no separator, no leading dot or
# dash.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# `YYYYMMDDTHHMMSSZ-<host>`: sorts by time, unique per host and second.
BACKUP_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Far above anything real, low enough for any 64-bit consumer of the JSON.
MAX_INTEGER = 2**63 - 1


def is_name(text: str) -> bool:
    """Whether the text may name a set or a host."""
    return NAME.fullmatch(text) is not None


def is_backup_id(text: str) -> bool:
    """Whether the text has the form of an id of a backup or of a drill."""
    return BACKUP_ID.fullmatch(text) is not None


def whole_number(text: str) -> int | None:
    """A whole number from 0 to MAX_INTEGER in ASCII digits, None for anything else.

    Text that others wrote needs this before `int`, which takes the digits of every script and
    fails on very many; `str.isdigit` even takes what `int` does not.
    """
    if re.fullmatch(r"[0-9]{1,19}", text) is None:
        return None
    number = int(text)
    return number if number <= MAX_INTEGER else None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key is there twice")
    return data


def parse_json(text: str | bytes, where: str, error: type[ToolError] = ToolError) -> Any:
    """Parse JSON; duplicate keys, NaN and bytes that are not UTF-8 are refused. Raises `error`,
    which names `where`.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: not valid JSON ({problem})") from None


class Fields:
    """A JSON object that is read key by key; `done` complains about what nobody asked for."""

    def __init__(self, data: object, where: str, error: type[ToolError] = ToolError) -> None:
        if not isinstance(data, dict):
            raise error(f"{where}: a JSON object is expected, {_kind(data)} is there")
        self.where = where
        self._data: dict[str, Any] = data
        self._error = error
        self._asked: set[str] = set()

    def fail(self, message: str) -> ToolError:
        """The error to raise about this object."""
        return self._error(f"{self.where}: {message}")

    def everything(self) -> dict[str, Any]:
        """All keys with their values, unchecked."""
        return dict(self._data)

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        self._asked.add(key)
        return self._data.get(key) is not None

    def raw(self, key: str) -> Any:
        """The value of a key that must be there."""
        self._asked.add(key)
        if key not in self._data:
            raise self.fail(f'key "{key}" is missing')
        return self._data[key]

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        """A string that is not empty and, with a pattern, matches it as a whole."""
        value = self.raw(key)
        if not isinstance(value, str) or not value:
            raise self.fail(f'"{key}" must be a string that is not empty, it is {_kind(value)}')
        if "\x00" in value or "\n" in value:
            raise self.fail(f'"{key}" must be one line')
        if pattern is not None and pattern.fullmatch(value) is None:
            raise self.fail(f'"{key}" has a form that is not allowed: {value[:80]!r}')
        return value

    def optional_text(self, key: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """As `text`, or None where the key is absent or null."""
        return self.text(key, pattern) if self.has(key) else None

    def integer(self, key: str, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
        """A whole number within bounds."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(f'"{key}" must be a whole number, it is {_kind(value)}')
        if not minimum <= value <= maximum:
            raise self.fail(f'"{key}" must be {minimum} to {maximum}, it is {value}')
        return value

    def optional_integer(
        self, key: str, default: int | None = None, minimum: int = 0
    ) -> int | None:
        """As `integer`, or the default where the key is absent or null."""
        return self.integer(key, minimum) if self.has(key) else default

    def number(self, key: str, minimum: float = 0) -> float:
        """A number that is not below the minimum."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(f'"{key}" must be a number, it is {_kind(value)}')
        if value < minimum:
            raise self.fail(f'"{key}" must be at least {minimum}, it is {value}')
        return float(value)

    def boolean(self, key: str) -> bool:
        """true or false."""
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.fail(f'"{key}" must be true or false, it is {_kind(value)}')
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of the given words."""
        value = self.text(key)
        if value not in choices:
            raise self.fail(f'"{key}" must be one of {", ".join(choices)}; it is {value[:80]!r}')
        return value

    def array(self, key: str) -> list[Any]:
        """A list."""
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.fail(f'"{key}" must be a list, it is {_kind(value)}')
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object with free keys."""
        value = self.raw(key)
        if not isinstance(value, dict):
            raise self.fail(f'"{key}" must be an object, it is {_kind(value)}')
        return value

    def fields(self, key: str) -> Fields:
        """An object that is read strictly too."""
        return Fields(self.raw(key), f"{self.where}: {key}", self._error)

    def each(self, key: str) -> list[Fields]:
        """A list of objects that are read strictly too."""
        return [
            Fields(item, f"{self.where}: {key}[{index}]", self._error)
            for index, item in enumerate(self.array(key))
        ]

    def done(self) -> None:
        """Complain about keys that nobody asked for."""
        unknown = sorted(set(self._data) - self._asked)
        if unknown:
            raise self.fail(f"unknown key {', '.join(json.dumps(key) for key in unknown)[:200]}")


def _kind(value: object) -> str:
    """What a JSON value is, never its content: it may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return "a list" if isinstance(value, list) else "an object"
