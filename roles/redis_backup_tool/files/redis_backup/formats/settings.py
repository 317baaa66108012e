"""The settings of a Redis server that decide how it writes an RDB: the manifest has those of the
server that made the backup, and the sandboxed server of a drill is given the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Patterns of CONFIG GET that find all of `NAMES`, in every release.
PATTERNS = (
    "databases",
    "rdbcompression",
    "hash-max-*",
    "list-*",
    "set-max-*",
    "zset-max-*",
    "stream-node-max-*",
)
# Up to Redis 6.2 these are ziplists; later releases know both spellings.
_LISTPACKS = (
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "list-max-listpack-size",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
)
_ZIPLISTS = {name.replace("listpack", "ziplist"): name for name in _LISTPACKS}
NAMES = frozenset(
    (
        "databases",
        "rdbcompression",
        "list-compress-depth",
        "set-max-intset-entries",
        "set-max-listpack-entries",
        "set-max-listpack-value",
        "stream-node-max-bytes",
        "stream-node-max-entries",
        *_LISTPACKS,
        *_ZIPLISTS,
    )
)
_SWITCHES = frozenset(("rdbcompression",))
#: What a value looks like.
VALUE = re.compile(r"yes|no|-?[0-9]{1,18}")


def chosen(settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that are known here, with values as they have to be, each in one
    spelling, in order of their names. Pure.
    """
    return {
        name: settings[name]
        for name in sorted(NAMES & set(settings))
        if VALUE.fullmatch(settings[name])
        and (settings[name] in ("yes", "no")) == (name in _SWITCHES)
        and _ZIPLISTS.get(name) not in settings
    }
