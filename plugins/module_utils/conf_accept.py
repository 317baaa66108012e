"""Consent to what a change costs: the entries of `redis_accept`. No I/O but that of `require`.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.conf_consequences import Consequence
from ansible_collections.proven.redis.plugins.module_utils.conf_directives import fold

_ENTRY = re.compile(r"([^:\s]+):([A-Za-z][A-Za-z0-9-]*):([0-9]+)-(\S+)")

SUBJECT_OF_USERS = "acl"


class Verdict(NamedTuple):
    """How the consequences on a host fit what was accepted for it.

    Attributes:
        refused: consequences without an entry that covers them.
        accepted: the others.
        outgrown: entries for this host about what is refused; it is more now, or of another kind.
        unneeded: entries for this host about what this change does not do.
        unreadable: entries that are none, whatever the host.
    """

    refused: list[Consequence]
    accepted: list[Consequence]
    outgrown: list[str]
    unneeded: list[str]
    unreadable: list[str]


def entry(one: Consequence, host: str) -> str:
    """The consent to a consequence, an upper bound: keys and clients come and go between two runs.

    It has a twentieth to spare and is rounded up to two digits; below 20, it is the number.
    """
    spared = one.number + one.number // 20
    step = int(10 ** max(0, len(str(spared)) - 2))
    return f"{host}:{one.subject}:{-(-spared // step) * step}-{one.unit}"


def about(accept: Iterable[str], *, users: bool) -> list[str]:
    """The entries about users, or all others: each is judged where its subject is looked at."""
    found = ((text, _ENTRY.fullmatch(text.strip())) for text in accept)
    return [
        text
        for text, words in found
        if (words is not None and fold(words[2]) == SUBJECT_OF_USERS) == users
    ]


def judge(found: Sequence[Consequence], accept: Iterable[str], host: str) -> Verdict:
    """Hold the consequences on a host against the entries of `redis_accept`."""
    subjects: dict[str, str] = {}  # of the entries for this host
    bounds: dict[tuple[str, str], int] = {}
    unreadable = []
    for text in accept:
        words = _ENTRY.fullmatch(text.strip())
        if words is None:
            unreadable.append(text)
        elif words[1] == host:
            subject, number, unit = fold(words[2]), int(words[3]), words[4]
            subjects[text] = subject
            bounds[subject, unit] = max(number, bounds.get((subject, unit), 0))
    refused = [one for one in found if one.number > bounds.get((one.subject, one.unit), -1)]
    about_refused = {one.subject for one in refused}
    known = {one.subject for one in found}
    return Verdict(
        refused=refused,
        accepted=[one for one in found if one not in refused],
        outgrown=[text for text, subject in subjects.items() if subject in about_refused],
        unneeded=[text for text, subject in subjects.items() if subject not in known],
        unreadable=unreadable,
    )


def refusal(verdict: Verdict, host: str) -> str:
    """Why the change is not made, in words; empty where nothing speaks against it."""
    if verdict.unreadable:
        return (
            f"redis_accept has {', '.join(verdict.unreadable)}; an entry is "
            "HOST:SUBJECT:NUMBER-UNIT, such as redis-1:maxmemory:110000-keys, and a refusal prints "
            "it ready to copy."
        )
    if not verdict.refused:
        return ""
    words = [f"{host} is left as it is:", *(one.sentence for one in verdict.refused)]
    if verdict.outgrown:
        words.append(f"redis_accept has {', '.join(verdict.outgrown)}, and it is more now.")
    entries = ", ".join(entry(one, host) for one in verdict.refused)
    words.append(f"Correct the value, or agree to it: redis_accept: [{entries}]")
    return " ".join(words)


def shown(found: Iterable[Consequence], host: str) -> list[dict[str, Any]]:
    """Consequences as a module returns them."""
    return [{**one._asdict(), "entry": entry(one, host)} for one in found]


def require(module: AnsibleModule, found: Sequence[Consequence], *, users: bool) -> list[str]:
    """Fail unless each consequence is agreed to; else the lines of the plan about them.

    Args:
        module: one with the options `host` and `accept`.
        found: what its change costs.
        users: whether it changes users, or else settings.
    """
    host = module.params["host"]
    verdict = judge(found, about(module.params["accept"], users=users), host)
    problem = refusal(verdict, host)
    if problem:
        module.fail_json(msg=problem, consequences=shown(verdict.refused, host))
    # The run that follows a plan, which is made in check mode, has no need to say it again.
    if verdict.unneeded and module.check_mode:
        module.warn(
            f"redis_accept has {', '.join(verdict.unneeded)}, for which there is no need (any "
            "more). Take it out of the inventory: it would agree to a mistake."
        )
    return [f"{one.subject}: {one.sentence} (accepted)" for one in verdict.accepted]
