"""redis.conf from a dictionary of directives and values. Pure functions, no I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    ONE_LINE,
    REPEATED,
    fold,
    release_of,
    spell,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_text import (
    ConfError,
    groups_of,
    quote,
    split_args,
)

# Before, "-::1" is no address; any that the host does not have is passed over all the same.
_OPTIONAL_BIND_SINCE = (6, 2)


def render(mapping: Mapping[str, Any], version: str = "7.0") -> str:
    """The lines of a redis.conf for this mapping, in its order, each ended by a newline.

    - true and false become `yes` and `no`, None leaves the directive out;
    - a list gives the lines of a directive that repeats (`save`, `client-output-buffer-limit`,
      `user`, `rename-command`, `loadmodule`, `include`), each item a string or a list of
      arguments, and the arguments of one that takes several on its line (`bind`, `replicaof`);
    - a string is one argument, except for these: there it is split as Redis would split it;
    - an empty `save`, given as a list or as a string, is `save ""` (no line at all would mean
      Redis's defaults);
    - `slaveof`/`replicaof`, ziplist/listpack and the like are spelled for the version.

    Raises ConfError for what cannot be written: a newline or a NUL, a directive given twice (under
    its old and its new name, say), a mapping as a value, a list where Redis takes one value.
    """
    release_of(version)
    lines = []
    seen: dict[str, str] = {}
    for name, value in mapping.items():
        today = _checked_name(name)
        if today in seen:
            raise ConfError(
                f"{name} is given twice (the other time as {seen[today]}); keep one of them"
            )
        seen[today] = name
        if value is None:
            continue
        spelled = spell(today, version)
        lines += [
            " ".join([spelled, *(quote(arg) for arg in args)])
            for args in _argument_lists(name, today, value, version)
        ]
    return "".join(f"{line}\n" for line in lines)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise ConfError(f"{name!r} is not the name of a directive")
    return fold(name)


def _argument_lists(name: str, today: str, value: Any, version: str) -> list[list[str]]:
    if today == "save":
        return groups_of(2, name, _flat(_lines_of(name, value))) or [[""]]
    if today == "client-output-buffer-limit":
        groups = groups_of(4, name, _flat(_lines_of(name, value)))
        old = release_of(version) < (5, 0)
        classes = {"slave": "slave" if old else "replica", "replica": "slave" if old else "replica"}
        return [[classes.get(group[0].lower(), group[0]), *group[1:]] for group in groups]
    if today in REPEATED:
        return _lines_of(name, value)
    if today in ONE_LINE:
        if isinstance(value, (list, tuple)):
            if not value:
                raise ConfError(f"{name} has an empty list; leave it out or give it a value")
            args = [_scalar(name, item) for item in value]
        else:
            args = _split_value(name, value)
        if today == "bind" and release_of(version) < _OPTIONAL_BIND_SINCE:
            args = [arg[1:] if arg.startswith("-") else arg for arg in args]
        return [args]
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise ConfError(f"{name} takes one value, not a list of {len(value)}")
        return [[_scalar(name, value[0])]]
    return [[_scalar(name, value)]]


def _lines_of(name: str, value: Any) -> list[list[str]]:
    """A value of a repeating directive as lists of arguments, empty ones left out."""
    items = value if isinstance(value, (list, tuple)) else [value]
    lines = []
    for item in items:
        if isinstance(item, (list, tuple)):
            lines.append([_scalar(name, part) for part in item])
        else:
            lines.append(_split_value(name, item))
    return [line for line in lines if line and line != [""]]


def _split_value(name: str, value: Any) -> list[str]:
    text = _scalar(name, value)
    try:
        return split_args(text) or [""]
    except ConfError as error:
        raise ConfError(f"{name} cannot be split into arguments: {error}") from None


def _flat(lines: Iterable[Sequence[str]]) -> list[str]:
    return [arg for line in lines for arg in line]


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str):
        raise ConfError(
            f"{name} has a value of type {type(value).__name__};"
            " it must be text, a number, a boolean or a list of these"
        )
    if "\n" in value or "\0" in value:
        raise ConfError(f"{name} has a newline or NUL character in its value; take it out")
    return str(value)
