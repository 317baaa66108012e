"""Filter: what every instance of a set said of itself, for the decision table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: redis_nodes
short_description: States of all instances of a replication set, those outside --limit too
description:
  - Joins the members of a set with what the module P(redis_state#module) registered on each host
    of the play, and with the results of the delegated loop over the hosts outside C(--limit).
  - A host of which nothing is known has the state C(unreachable).
positional: hostvars, outside
options:
  _input:
    description: The members, as P(redis_members#filter) returns them.
    type: list
    elements: dict
    required: true
  hostvars:
    description: The magic variable of this name; C(__redis_state) is read from each host.
    type: dict
    required: true
  outside:
    description: C(results) of the delegated loop over hosts outside the play.
    type: list
    elements: dict
    default: []
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
nodes: "{{ members | redis_nodes(hostvars, outside_states.results | default([])) }}"
"""

RETURN = r"""
_value:
  description: One node per member, as P(redis_topology#filter) takes them.
  type: list
  elements: dict
"""

UNREACHABLE: Mapping[str, Any] = {
    "state": "unreachable",
    "role": None,
    "master_host": None,
    "master_port": None,
    "link_up": False,
    "offset": None,
    "keys": 0,
    "connected_replicas": 0,
    "replicas": [],
    "keys_on_disk": False,
    "file_replicaof": None,
    "detail": "Ansible cannot reach this host",
}


def redis_nodes(
    members: Iterable[Mapping[str, Any]],
    hostvars: Mapping[str, Mapping[str, Any]],
    outside: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    delegated = {result[result["ansible_loop_var"]]["host"]: result for result in outside}
    nodes = []
    for member in members:
        host = member["host"]
        registered = delegated.get(host) or hostvars[host].get("__redis_state") or {}
        nodes.append({**UNREACHABLE, **(registered.get("node") or {}), **member})
    return nodes


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_nodes": redis_nodes}
