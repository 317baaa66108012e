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
_DAYS = re.compile(rf"(?:{_DAY})(?:(?:\.\.|-|,)(?:{_DAY}))*,?", re.IGNORECASE)
# A star, or numbers and ranges with steps.
_PART = r"(?:\*|\d+(?:\.\.\d+)?)(?:/\d+)?(?:,\d+(?:\.\.\d+)?(?:/\d+)?)*"
_DATE = re.compile(rf"(?:(?P<year>\*)-)?(?P<month>{_PART})[-~](?P<day>{_PART})")
_TIME = re.compile(rf"(?P<hour>{_PART}):(?P<minute>{_PART})(?::(?P<second>{_PART})(?:\.\d+)?)?")
_LIMITS = {"month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}
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
            found = found or _out_of_range(match)
    if words:
        return f"{words[0]!r} is no part of a calendar event, or in the wrong place"
    return found


def _is_zone(word: str) -> bool:
    if word == "UTC":
        return True
    known = zoneinfo.available_timezones()
    # A machine without a database of time zones cannot tell.
    return word in known if known else re.fullmatch(r"[A-Z]\w+(/[\w+-]+)*", word) is not None


def _out_of_range(match: re.Match[str]) -> str:
    fields = {name: text for name, text in match.groupdict().items() if text and name in _LIMITS}
    for name, text in fields.items():
        low, high = _LIMITS[name]
        for part in text.split(","):
            numbers, _, step = part.partition("/")
            ends = [int(number) for number in re.findall(r"\d+", numbers)]
            if any(not low <= number <= high for number in ends) or ends != sorted(ends):
                return f"{part!r} is no {name} ({low} to {high})"
            if step and int(step) == 0:
                return f"{part!r} has a step of 0"
    days, months = fields.get("day", "*"), fields.get("month", "*")
    if days.isdigit() and months.isdigit() and int(days) > _LONGEST[int(months) - 1]:
        return "no such day ever comes"
    return ""
