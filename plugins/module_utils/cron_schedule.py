"""The schedule of a line in /etc/cron.d, read as Debian's cron reads it. Pure functions, no I/O.

cron drops a line that it cannot read with a word in the system's log, and the job never runs. It
also takes lines that mean nothing: `22-2` is no hour at all, and of `5;3` it reads the 5 alone.
Both are refused here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EXAMPLE = "5 0 * * *"
WORDS = ("reboot", "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly")


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    # 0 and 7 are both Sunday.
    _Field("day of the week", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_RANGE = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


def problem(text: str) -> str:
    """Why cron would never run this, in words that follow the schedule; empty where it would."""
    words = text.split()
    if "\n" in text or not words:
        return "it is not one line of five fields"
    if text.strip().startswith("@"):
        if text.strip()[1:] in WORDS:
            return ""
        return f"cron knows no such word; it knows {', '.join('@' + word for word in WORDS)}"
    if len(words) != len(_FIELDS):
        return f"it has {len(words)} field{'s' if len(words) > 1 else ''} and not five"
    values = []
    for field, word in zip(_FIELDS, words):
        found = _values(field, word)
        if isinstance(found, str):
            return found
        values.append(found)
    return _never(values, days_count=words[4].startswith("*"))


def _values(field: _Field, word: str) -> set[int] | str:
    """The numbers that a field stands for; else what is wrong with it."""
    found: set[int] = set()
    for part in word.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return f"{word!r} is no {field.name}"
        star, first, last, step = match.groups()
        low = field.low if star else _number(field, first)
        high = field.high if star else _number(field, last) if last else low
        for number, given in ((low, first), (high, last)):
            if number is None or not field.low <= number <= field.high:
                return f"{given!r} is no {field.name} ({field.low} to {field.high})"
        assert low is not None
        assert high is not None
        if step is not None and not (star or last):
            return f"{part!r} has a step without a range: write {first}-{field.high}/{step}"
        if step is not None and int(step) == 0:
            return f"{part!r} has a step of 0"
        if low > high:
            return f"{part!r} is a range from high to low, which is no {field.name} at all"
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _number(field: _Field, word: str) -> int | None:
    if word.isascii() and word.isdigit():
        return int(word)
    if word.lower() in field.names:
        return field.names.index(word.lower()) + (1 if field.low == 1 else 0)
    return None


def _never(values: list[set[int]], *, days_count: bool) -> str:
    """Why no day ever comes. With a day of the week, that one counts besides."""
    days, months = values[2], values[3]
    if days_count and not any(min(days) <= _LONGEST[month - 1] for month in months):
        return "no such day ever comes, so it would never run"
    return ""
