"""Filter: what every instance of a set said of itself, for the decision table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_topology import UNKNOWN

DOCUMENTATION = r"""
name: redis_nodes
short_description: States of all instances of a replication set, those outside --limit too
description:
  - Joins the members of a set with what the module P(redis_state#module) registered on each host
    of the play, and with the results of the delegated loop over the hosts outside C(--limit).
  - A host of which nothing is known has the state C(unreachable).
  - Each node has C(aliases), other names and addresses of its address, as the hosts of the set
    resolve them. What could mean several instances is an alias of none.
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


def redis_nodes(
    members: Iterable[Mapping[str, Any]],
    hostvars: Mapping[str, Mapping[str, Any]],
    outside: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    delegated = {result[result["ansible_loop_var"]]["host"]: result for result in outside}
    nodes = []
    resolved: defaultdict[str, set[str]] = defaultdict(set)
    for member in members:
        host = member["host"]
        registered = delegated.get(host) or hostvars[host].get("__redis_state") or {}
        nodes.append({**UNKNOWN, **(registered.get("node") or {}), **member})
        for name, addresses in (registered.get("resolved") or {}).items():
            resolved[name].update(addresses)

    candidates = {node["host"]: _other_names(node["address"], resolved) for node in nodes}
    meant = Counter((name, node["port"]) for node in nodes for name in candidates[node["host"]])
    for node in nodes:
        names = candidates[node["host"]]
        node["aliases"] = sorted(name for name in names if meant[name, node["port"]] == 1)
    return nodes


def _other_names(address: str, resolved: Mapping[str, set[str]]) -> set[str]:
    """What else means this address: its own addresses, and the names of any of them."""
    own = {address} | resolved.get(address, set())
    return (own | {name for name, addresses in resolved.items() if own & addresses}) - {address}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_nodes": redis_nodes}
