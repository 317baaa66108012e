"""Save points of Redis, as people write them. Pure functions, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

EXAMPLE = '[{seconds: 900, changes: 1}], or redis_save: "900 1 300 10"'
WANTED = "a list of save points, or their text in redis.conf"


class SavePointsError(ValueError):
    """What is no list of save points; the message says which part."""


def save_points(value: Any) -> list[list[int]]:
    """Pairs of seconds and changes, from any of these:

    - a list of dictionaries with `seconds` and `changes`, the structured form;
    - text as in redis.conf: `900 1`, `900 1 300 10`, `save 900 1` on several lines; empty text
      (`""`, and `save ""` as the file has it) is none;
    - a list of such texts.

    Raises SavePointsError.
    """
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Sequence):
        raise SavePointsError("it is neither a list nor text")
    points: list[list[int]] = []
    for item in value:
        if isinstance(item, str):
            points += _of_text(item)
        elif isinstance(item, Mapping):
            points.append(_of_dictionary(item))
        else:
            raise SavePointsError(f"{item!r} is neither a dictionary nor text")
    return points


def _of_text(text: str) -> list[list[int]]:
    # The word of the file, once per line.
    words = re.sub(r"(?m)^\s*save\s", " ", text.strip() + " ").replace('""', " ").split()
    if len(words) % 2:
        raise SavePointsError(f"{text!r} has a number without its other one")
    return [
        [_number(seconds, 1, "seconds"), _number(changes, 0, "changes")]
        for seconds, changes in zip(words[::2], words[1::2])
    ]


def _of_dictionary(item: Mapping[Any, Any]) -> list[int]:
    if set(item) != {"seconds", "changes"}:
        raise SavePointsError(f"{dict(item)!r} has other keys than seconds and changes")
    return [_number(item["seconds"], 1, "seconds"), _number(item["changes"], 0, "changes")]


def _number(value: Any, least: int, name: str) -> int:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and re.fullmatch("[0-9]+", value)):
        raise SavePointsError(f"{value!r} is no number of {name}")
    if int(value) < least:
        raise SavePointsError(f"{value!r} {name} are fewer than {least}")
    return int(value)
