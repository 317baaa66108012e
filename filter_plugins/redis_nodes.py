"""Filter: what every instance of a set said of itself, for the decision table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# Modules get this code as ansible.module_utils.*; on the controller that name does not reach the
# project's own directory, so filters import it from the project's root. Same lines in every filter.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.redis_topology import UNKNOWN

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
        nodes.append({**UNKNOWN, **(registered.get("node") or {}), **member})
    return nodes


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_nodes": redis_nodes}
