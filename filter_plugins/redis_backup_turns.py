"""Filter: which hosts of a set back it up in which order, and what became of that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: redis_backup_turns
short_description: Order in which the hosts of a set can make a backup, and what came of it
description:
  - Reads the results of C(redis-backup --json turn) on every host of a set, and those of
    C(redis-backup --json create --now) on the hosts that were tried.
positional: tried
options:
  _input:
    description: >-
      Registered results of C(turn) by the name of the host, those of unreachable hosts too.
    type: dict
    required: true
  tried:
    description: Registered results of the loop over hosts that ran C(create).
    type: list
    elements: dict
    default: []
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
loop: "{{ (turns | proven.redis.redis_backup_turns).order }}"
# -> [redis-2, redis-1]
"""

RETURN = r"""
_value:
  description: What the results amount to.
  type: dict
  contains:
    order:
      description: Hosts that can make a backup, the one whose turn comes first before the others.
      type: list
      elements: str
    backup:
      description: The document of the one backup that was confirmed; null without any.
      type: dict
    answers:
      description: A line per host with the reason why it made no backup.
      type: list
      elements: str
"""


def redis_backup_turns(
    turns: Mapping[str, Mapping[str, Any]], tried: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    places = [json.loads(result["stdout"]) for result in turns.values() if result.get("rc") == 0]
    able = sorted((place for place in places if place["rank"] is not None), key=_rank)
    made = [json.loads(result["stdout"]) for result in tried if result.get("rc") == 0]
    last = {**turns, **{result[result["ansible_loop_var"]]: result for result in tried}}
    return {
        "order": [place["host"] for place in able],
        "backup": made[0] if len(made) == 1 else None,
        "answers": [f"{host}: {_why(last[host])}" for host in turns],
    }


def _rank(place: Mapping[str, Any]) -> int:
    return int(place["rank"])


def _why(result: Mapping[str, Any]) -> str:
    """Why a host made no backup, by its last result."""
    if "rc" not in result:
        return str(result.get("msg", "no answer"))
    if result["rc"] == 0:
        return "not in sync with its master"
    lines = result.get("stderr_lines") or [f"exit status {result['rc']}"]
    return str(lines[-1])


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_backup_turns": redis_backup_turns}
