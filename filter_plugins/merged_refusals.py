"""Filter: the reasons of all hosts against a run, as one text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.value_checks import without_echoes

DOCUMENTATION = r"""
name: merged_refusals
short_description: The reasons of all hosts against a run, as one text
description:
  - Merges what speaks against a run, host by host, so that a reason that several hosts share is
    shown once, with their names.
  - Where one is about a value, rules and configurations that could not be computed from it are left
    out.
positional: hostvars, name
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
  name:
    description: The fact that holds the reasons of each host, a list of sentences.
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
text: "{{ ansible_play_hosts | proven.redis.merged_refusals(hostvars, 'refusals') }}"
# -> "redis-1, redis-2: redis_bind is text.\nredis-3: its disk is full."
"""

RETURN = r"""
_value:
  description: >-
    The reasons in the order of the hosts, one on each line, behind the names of its hosts; empty
    when there are none. A reason that all hosts share stands alone.
  type: str
"""


def merged_refusals(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str
) -> str:
    """See DOCUMENTATION."""
    everybody = list(hosts)
    by_reason: dict[str, list[str]] = {}
    for host in everybody:
        for reason in hostvars[host].get(name) or ():
            text = " ".join(str(reason).split())
            if host not in by_reason.setdefault(text, []):
                by_reason[text].append(host)
    return "\n".join(
        text
        if len(whose) == len(everybody) or set(whose) & _named(text, everybody)
        else f"{', '.join(whose)}: {text}"
        for text, whose in ((text, by_reason[text]) for text in without_echoes(by_reason))
    )


def _named(text: str, hosts: Iterable[str]) -> set[str]:
    """The hosts whose names begin the text already."""
    return {host for host in hosts if text.startswith(host + " ")}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"merged_refusals": merged_refusals}
