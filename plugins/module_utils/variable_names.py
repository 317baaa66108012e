"""Names of variables that nobody reads, and what was meant. Pure functions, no I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    BOOLEANS,
    ENUMS,
    IMMUTABLE,
    MEMORY,
    NUMBERS,
    ONE_LINE,
)

PREFIX = "redis_"
# How much of two names has to be the same. Of what a name has behind the prefix, or any two would
# be close.
CLOSE = 0.8
NOBODY = "is no variable of the roles: nothing would read it."
# Directives of the tables, and the most common numbers.
_DECIDED = frozenset(
    (
        *("aclfile", "appenddirname", "appendfilename", "daemonize", "logfile", "pidfile"),
        *("rename-command", "replicaof", "supervised"),
    )
)
_DIRECTIVES = BOOLEANS | ENUMS | IMMUTABLE | MEMORY | ONE_LINE | NUMBERS | {"tls-port"}
# Also taken for what they are in another spelling. Of the others that the role decides, names like
# redis_log_file are common in roles of other people.
_SPELT = sorted(_DIRECTIVES - _DECIDED | {"rename-command"})
_CLOSE_TO_DIRECTIVE = 0.9


def unknown(given: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each name that is close to a known one, or to a directive of redis.conf
    behind the prefix. Others are somebody else's: other roles are called redis_* too.
    """
    by_tail = {name[len(PREFIX) :]: name for name in known}
    squeezed = {_squeezed(tail): name for tail, name in by_tail.items()}
    found = []
    for name in sorted(given):
        prefix, _, tail = name.lower().partition("_")
        close = squeezed.get(_squeezed(tail))
        if name in known or not (prefix == "redis" or (close and _is_misspelt(prefix))):
            continue
        directive = _directive(tail, by_tail) if close is None else None
        if directive in _DECIDED:
            found.append(f"{name} {NOBODY} The role decides {directive} of redis.conf itself.")
        elif directive:
            found.append(
                f"{name} {NOBODY} Set that directive of redis.conf with redis_extra_config:"
                f" {{{directive}: ...}}."
            )
        elif close or (alike := difflib.get_close_matches(tail, by_tail, 1, CLOSE)):
            found.append(
                f"{name} {NOBODY} Did you mean {close or by_tail[alike[0]]}? If it is a variable of"
                " your own, give it a name that is less like ours."
            )
    return found


def _directive(tail: str, ours: Collection[str]) -> str | None:
    """The directive that a name is meant for; none where it is rather meant for one of ours."""
    spelt = tail.replace("_", "-")
    if spelt in _DECIDED or spelt in _DIRECTIVES:
        return spelt
    same = [name for name in _SPELT if _squeezed(name) == _squeezed(tail)]
    if same or difflib.get_close_matches(tail, ours, 1, CLOSE):
        return same[0] if same else None
    return next(iter(difflib.get_close_matches(spelt, _SPELT, 1, _CLOSE_TO_DIRECTIVE)), None)


def _is_misspelt(prefix: str) -> bool:
    """Two letters changed places, one is missing or doubled. What has the whole word in it (predis,
    redis6) is a name of something else."""
    right = PREFIX[:-1]
    missing = {right[:place] + right[place + 1 :] for place in range(len(right))}
    doubled = re.sub(r"(.)\1", r"\1", prefix) == right
    return right not in prefix and (sorted(prefix) == sorted(right) or prefix in missing or doubled)


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
