"""Names of variables that nobody reads, and what was meant. Pure functions, no I/O."""

from __future__ import annotations

import difflib
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
        *("replicaof", "supervised"),
    )
)
_DIRECTIVES = BOOLEANS | ENUMS | IMMUTABLE | MEMORY | ONE_LINE | NUMBERS


def unknown(given: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each name that is close to a known one, or that is a directive of redis.conf
    behind the prefix. Others are somebody else's: other roles are called redis_* too.
    """
    by_tail = {name[len(PREFIX) :]: name for name in known}
    squeezed = {_squeezed(tail): name for tail, name in by_tail.items()}
    found = []
    for name in sorted(given):
        if not name.lower().startswith(PREFIX) or name in known:
            continue
        tail = name.lower()[len(PREFIX) :]
        directive = tail.replace("_", "-")
        close = squeezed.get(_squeezed(tail))
        if close is None and directive in _DECIDED:
            found.append(f"{name} {NOBODY} The role decides that directive of redis.conf itself.")
        elif close is None and directive in _DIRECTIVES:
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


def _squeezed(tail: str) -> str:
    return tail.lower().replace("_", "")
