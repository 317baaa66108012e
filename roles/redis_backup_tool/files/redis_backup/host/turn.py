"""Whose turn it is to back up the set: a missing backup is the fault, a second one is not.

A host waits by its rank and looks whether a receipt appeared that was not there when it began, of
data that are its own: one that was taken over, or was late, is no reason to yield.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config.model import Host
from ..formats.manifest import COUNTING
from ..formats.receipts import Receipt
from ..formats.report import LEVELS


@dataclass(frozen=True)
class Replica:
    """A replica as the master's INFO lists it: the address and port that it announced, and whether
    it is `online`.
    """

    address: str
    port: int
    online: bool


def in_sync(hosts: Sequence[Host], replicas: Sequence[Replica]) -> list[str]:
    """Names of the set's hosts that are replicas in sync, in inventory order."""
    online = {(replica.address, replica.port) for replica in replicas if replica.online}
    return [host.name for host in hosts if (host.address, host.port) in online]


def rank(
    hosts: Sequence[Host], replicas: Sequence[Replica], host: str, is_master: bool
) -> int | None:
    """The rank of a host: replicas in sync come in inventory order from 0, the master after them.

    None when the host is neither the master nor in sync: it has no turn. `replicas` is what the
    master says.
    """
    names = in_sync(hosts, replicas)
    if is_master:
        return len([name for name in names if name != host])
    return names.index(host) if host in names else None


def wait_seconds(place: int, delay: float) -> float:
    """How long a host of this rank waits before it looks again."""
    return place * delay


@dataclass(frozen=True)
class Own:
    """What a host knows of its own data when it decides whether to yield: its place in the history
    of its master (a replication id and an offset, and the id before the last promotion with the
    offset up to which that holds), its keys, and unix time in seconds.
    """

    repl_id: str
    repl_offset: int
    former_id: str
    former_offset: int
    keys: int
    time: int


# How far clocks of two hosts may be apart, and a turn of one before that of the other. Seconds.
_SAME_TURN = 600


def must_yield(
    place: int,
    before: Mapping[str, Receipt] | None,
    after: Mapping[str, Receipt] | None,
    own: Own,
    wait: float,
    shrink_limit: int,
) -> str | None:
    """The id of the backup for which a host yields, None when it acts.

    `before` and `after` are the accepted receipts of the set at the start and after the wait (of
    so many seconds), None when they could not be read. A host yields only to a receipt that is new
    for certain, of this turn, proved to the level *form*, of a kind that counts, out of its own
    history, and of no fewer than `shrink_limit` per cent of its own keys; rank 0 never does.
    """
    if place == 0 or before is None or after is None:
        return None
    new = [key for key in after if key not in before]
    answers = [key for key in new if _answers(after[key], own, wait, shrink_limit)]
    return max(answers, default=None)


def _answers(receipt: Receipt, own: Own, wait: float, shrink_limit: int) -> bool:
    event, position = receipt.event, receipt.position
    if event is None or position is None or event.shrunk_from is not None:
        return False
    proved = event.level in LEVELS and LEVELS.index(event.level) >= LEVELS.index("form")
    # One that waited since yesterday is no answer. The clocks are of two hosts: should they be far
    # apart, there is one backup more.
    this_turn = abs(own.time - (event.fork_time or 0)) <= wait + _SAME_TURN
    ours = (position.repl_id == own.repl_id and position.repl_offset <= own.repl_offset) or (
        position.repl_id == own.former_id and position.repl_offset <= own.former_offset
    )
    enough = (event.keys or 0) * 100 >= own.keys * shrink_limit
    return proved and event.kind in COUNTING and this_turn and ours and enough
