"""Find in crontabs what a hand-made backup of Redis left there. Pure, no I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

# A client that is asked to save. The words of a save may stand behind options and be quoted.
_SAVES = re.compile(
    r"(?:^|[\s/;&|(`'\"])(?:redis|valkey)-cli\b[^;|#]*?\b(bgsave|save)\b", re.IGNORECASE
)
# `5 0 * * *` or `@daily`, then, in a system crontab, the account; NAME=value is no job.
_SCHEDULE = r"(?:@[a-z]+|(?:[^\s#]+\s+){4}[^\s#]+)\s+"
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\s*=")


class Job(NamedTuple):
    """One line of a crontab that touches Redis or its data."""

    file: str
    line: int
    command: str
    where: str  # in the line itself, or the script and its line
    why: str  # what it does there, in words


def jobs(
    file: str,
    text: str,
    names_an_account: bool,
    data: Sequence[str],
    read: Callable[[str], str | None],
) -> list[Job]:
    """The lines of one crontab that have Redis save, or that name its data.

    `names_an_account` tells a system crontab, which has an account in its sixth field. `data` are
    paths of the data directory and the snapshot. `read` gives the text of a script, None where
    there is none.
    """
    account = r"\S+\s+" if names_an_account else ""
    entry = re.compile(rf"\s*{_SCHEDULE}{account}(.+)$")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or _ASSIGNMENT.match(line.lstrip()):
            continue
        matched = entry.match(line)
        if matched:
            where, why = _touches(matched[1], data, read)
            if why:
                found.append(Job(file, number, matched[1].strip(), where, why))
    return found


def script_jobs(file: str, text: str, data: Sequence[str]) -> list[Job]:
    """The same of a script that cron runs by its place, such as one in /etc/cron.daily."""
    number, why = _in_script(text, data)
    return [Job(file, number, "", "", why)] if why else []


def _touches(
    command: str, data: Sequence[str], read: Callable[[str], str | None]
) -> tuple[str, str]:
    why = _why(command, data)
    if why:
        return "", why
    for word in _words(command):
        text = read(word) if word.startswith("/") else None
        number, why = _in_script(text, data) if text else (0, "")
        if why:
            return f"{word} line {number}", why
    return "", ""


def _in_script(text: str, data: Sequence[str]) -> tuple[int, str]:
    """The first line that has Redis save, else the first that names its data."""
    lines = [
        (number, _why(line, data))
        for number, line in enumerate(text.splitlines(), 1)
        if not line.lstrip().startswith("#")
    ]
    hits = [(number, why) for number, why in lines if why]
    saves = [hit for hit in hits if hit[1].startswith("runs")]
    return next(iter([*saves, *hits]), (0, ""))


def _why(text: str, data: Sequence[str]) -> str:
    saves = _SAVES.search(text)
    if saves:
        return f"runs redis-cli {saves[1].lower()}"
    for path in data:
        if re.search(rf"{re.escape(path)}(?![\w.-])", text):
            return f"names {path}"
    return ""


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()
