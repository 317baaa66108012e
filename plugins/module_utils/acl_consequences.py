"""Whom a change of users would shut out of a running server. No I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ansible_collections.proven.redis.plugins.module_utils.conf_accept import SUBJECT_OF_USERS
from ansible_collections.proven.redis.plugins.module_utils.conf_consequences import Consequence
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import User


def shut_out(
    desired: Mapping[str, User], current: Mapping[str, User], clients: Iterable[str], own: str
) -> list[Consequence]:
    """What it costs that users go or are turned off.

    Args:
        desired: the users as they are to be.
        current: those of the server.
        clients: the lines of its CLIENT LIST.
        own: the id of the connection that asks.
    """
    lost = {
        name
        for name, user in current.items()
        if user.enabled and not (name in desired and desired[name].enabled)
    }
    counts: Counter[str] = Counter()
    for line in clients:
        words = {name: value for name, _, value in (word.partition("=") for word in line.split())}
        # The run itself tells replicas to connect as another user, and M is a master, which this
        # server has connected to.
        links = set(words.get("flags", "")) & set("SM")
        if words.get("user") in lost and words.get("id") != own and not links:
            counts[words["user"]] += 1
    if not counts:
        return []
    number = sum(counts.values())
    which = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    return [
        Consequence(
            SUBJECT_OF_USERS,
            number,
            "clients",
            f"{number} clients are connected as users that are deleted or turned off: {which}. "
            "Those of a deleted user are disconnected at once, those of one that is off are "
            "refused when they connect again.",
        )
    ]
