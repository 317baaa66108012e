"""Whether a server may become a replica of a master without losing what it holds. Pure, no I/O.

A full resync replaces all that a replica holds. So the question is whether the master's history
contains the server's. The names are those of INFO replication: a master's history is known by
`master_replid`, up to `master_repl_offset`; before it was promoted, by `master_replid2`, below
`second_repl_offset` (replication.c of Redis, `masterTryPartialResynchronization`).

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NO_ID = "0" * 40


class Position(NamedTuple):
    """Where a server is in a replication history.

    Attributes:
        replid: `master_replid`.
        offset: bytes of the history that it has processed.
        replid2: `master_replid2`, the history before the last promotion; NO_ID for none.
        second_offset: `second_repl_offset`, the first byte that is not of that history.
    """

    replid: str
    offset: int
    replid2: str = NO_ID
    second_offset: int = -1

    def __str__(self) -> str:
        before = (
            f", before it {self.replid2[:8]}:{self.second_offset - 1}"
            if self.replid2 not in ("", NO_ID)
            else ""
        )
        return f"{self.replid[:8]}:{self.offset}{before}"


def position_of(replication: Mapping[str, Any]) -> Position:
    """The position of a server, from the section `replication` of its INFO."""
    is_master = replication["role"] == "master"
    return Position(
        str(replication["master_replid"]),
        int(replication["master_repl_offset" if is_master else "slave_repl_offset"]),
        str(replication["master_replid2"]),
        int(replication["second_repl_offset"]),
    )


def contains(master: Position, server: Position) -> bool:
    """Whether the history of the master contains that of the server.

    Read the server first and the master after it: while both are read, the master may go on.
    """
    if server.replid in ("", NO_ID):
        return False
    if server.replid == master.replid:
        return server.offset <= master.offset
    return server.replid == master.replid2 and server.offset < master.second_offset


def may_share(master: Position, server: Position) -> bool:
    """The same of positions that were not read in this order: not refused where it may hold."""
    return server.replid == master.replid != "" or contains(master, server)
