"""Whose turn it is to back up the set: a missing backup is the fault, a second one is not.

No clock of one host is compared with another's: a host waits by its rank and looks whether a
receipt appeared that was not there when it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.model import Host


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


def must_yield(
    place: int, before: frozenset[str] | None, after: frozenset[str] | None
) -> str | None:
    """The id of the backup for which a host yields, None when it acts.

    `before` and `after` are the accepted receipts of the set at the start and after the wait, None
    when they could not be read. Only a receipt that is new for certain makes a host yield; rank 0
    never does.
    """
    if place == 0 or before is None or after is None:
        return None
    new = after - before
    return max(new) if new else None
