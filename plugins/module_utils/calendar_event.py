"""A calendar event of systemd (OnCalendar=), as far as a daily job has a use for them.

systemd ignores a line that it cannot read, and refuses a timer that is left without any: seen here,
and not on the host when the timer is started. Only what never ends is taken: no certain year.
"""

from __future__ import annotations

import re
import zoneinfo

EXAMPLE = '"*-*-* 06:30:00"'
WORDS = frozenset(
    (
        *("minutely", "hourly", "daily", "monthly", "weekly", "yearly", "annually", "quarterly"),
        *("biannually", "bi-annually", "semiannually", "semi-annually"),
    )
)
_DAY = "mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SOME_DAYS = rf"(?:{_DAY})(?:(?:\.\.|-)(?:{_DAY}))?"
_DAYS = re.compile(rf"(?P<weekdays>{_SOME_DAYS}(?:,{_SOME_DAYS})*),?", re.IGNORECASE)
# A star alone, or numbers and ranges with steps.
_NUMBERS = r"[0-9]{1,2}(?:\.\.[0-9]{1,2})?(?:/[0-9]{1,2})?"
_PART = rf"(?:\*|{_NUMBERS}(?:,{_NUMBERS})*)"
# A day from the end of a month: of lists and ranges, systemd takes some and not others.
_END = r"[0-9]{1,2}(?:/[0-9]{1,2})?"
_DATE = re.compile(rf"(?:(?P<year>\*)-)?(?P<month>{_PART})(?:-(?P<day>{_PART})|~(?P<end>{_END}))")
_TIME = re.compile(
    rf"(?P<hour>{_PART}):(?P<minute>{_PART})(?::(?P<second>{_PART})(?:(?<!\*)\.[0-9]{{1,6}})?)?"
)
# The days from the end of a month are those that every month has.
_LIMITS = {
    "month": (1, 12),
    "day": (1, 31),
    "end": (1, 28),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
_FIELDS = {"end": "day from the end of a month"}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def problem(text: str) -> str:
    """What systemd would not take, in words that follow the event; empty where it takes it."""
    words = text.split()
    if not words:
        return "it is empty"
    if len(words) > 1 and _is_zone(words[-1]):
        words.pop()
    if len(words) == 1 and words[0].lower() in WORDS:
        return ""
    found = ""
    for kind in (_DAYS, _DATE, _TIME):
        match = kind.fullmatch(words[0]) if words else None
        if match is not None:
            words.pop(0)
            found = found or _no_such_days(match) or _out_of_range(match)
    if words:
        return f"{words[0]!r} is no part of a calendar event, or in the wrong place"
    return found


def _is_zone(word: str) -> bool:
    if word == "UTC":
        return True
    known = zoneinfo.available_timezones()
    # A machine without a database of time zones cannot tell.
    return word in known if known else re.fullmatch(r"[A-Z]\w+(/[\w+-]+)*", word) is not None


def _no_such_days(match: re.Match[str]) -> str:
    for some in (match.groupdict().get("weekdays") or "").split(","):
        ends = [_WEEK.index(day[:3]) for day in re.findall("[a-z]+", some.lower())]
        if ends != sorted(ends):
            return f"{some!r} goes beyond Sunday, the last day of a week of systemd's"
    return ""


def _out_of_range(match: re.Match[str]) -> str:
    values: dict[str, set[int]] = {}
    for name, (low, high) in _LIMITS.items():
        text = match.groupdict().get(name)
        if text is None:
            continue
        values[name] = set(range(low, high + 1)) if text == "*" else set()
        for part in text.split(",") if text != "*" else ():
            numbers, _, step = part.partition("/")
            ends = [int(number) for number in numbers.split("..")]
            if any(not low <= number <= high for number in ends) or ends != sorted(set(ends)):
                return f"{part!r} is no {_FIELDS.get(name, name)} ({low} to {high})"
            if step and int(step) == 0:
                return f"{part!r} has a step of 0"
            last = ends[-1] if len(ends) > 1 or not step else high
            # From a day before the end of a month, steps lead towards that end.
            room = ends[0] - low if name == "end" else last - ends[0]
            if step and int(step) > room:
                return f"{part!r} has a step that leads beyond the last one"
            values[name].update(range(ends[0], last + 1, int(step or 1)))
    if "day" in values and not any(
        day <= _LONGEST[month - 1] for month in values["month"] for day in values["day"]
    ):
        return "no such day ever comes"
    return ""
