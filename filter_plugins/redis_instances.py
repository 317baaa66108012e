"""Filter: the instances of a replication set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_set import UNKNOWN
from ansible_collections.proven.redis.plugins.module_utils.role_variables import given, value_of

DOCUMENTATION = r"""
name: redis_instances
short_description: The instances of a replication set, with what is known of each
description:
  - Turns the hosts of a set into its instances, with the address and port under which the others
    reach each. These come from inventory variables alone, so that hosts outside C(--limit) are
    known too.
  - With O(outside), each instance has its state too, as the module
    P(proven.redis.redis_state#module) registered it on the hosts of the play, and in a delegated
    loop for the hosts outside C(--limit). An instance of which nothing is known is C(unreachable).
    Its C(aliases) are other names and addresses of its address, as the hosts of the set resolve
    them; what could mean several instances is an alias of none.
positional: hostvars, outside, port, key
options:
  _input:
    description: Inventory names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable of this name; C(__redis_state) is read from each host.
    type: dict
    required: true
  outside:
    description: C(results) of the delegated loop over hosts outside the play; empty without any.
    type: list
    elements: dict
  port:
    description: >-
      Port of the instances that set no C(redis_port) of their own in the inventory. By default,
      that of the role C(redis).
    type: int
  key:
    description: What the host's name is called in each dictionary.
    type: str
    default: host
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
addresses: "{{ groups['redis'] | proven.redis.redis_instances(hostvars) }}"
# -> [{host: redis-1, address: 192.168.1.2, port: 6379}, ...]
instances: "{{ groups['redis'] | proven.redis.redis_instances(hostvars, outside_states.results) }}"
# -> [{host: redis-1, address: 192.168.1.2, port: 6379, state: up, role: master, ...}, ...]
"""

RETURN = r"""
_value:
  description: >-
    One dictionary with C(host) (or O(key)), C(address) and C(port) per host, in this order; with
    O(outside), as P(proven.redis.redis_topology#filter) takes them.
  type: list
  elements: dict
"""


def redis_instances(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    outside: Iterable[Mapping[str, Any]] | None = None,
    port: int | None = None,
    key: str = "host",
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    instances = []
    for host in hosts:
        variables = hostvars[host]
        address = value_of(variables, host, "redis_address")
        own = given(variables, "redis_port") or port or value_of(variables, host, "redis_port")
        instances.append({key: host, "address": str(address), "port": int(own)})
    return instances if outside is None else _with_states(instances, hostvars, outside)


def _with_states(
    instances: Iterable[Mapping[str, Any]],
    hostvars: Mapping[str, Mapping[str, Any]],
    outside: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    # One host of a set asks for all, so the same loop of the others was skipped.
    asked = [result for result in outside if not result.get("skipped")]
    delegated = {result[result["ansible_loop_var"]]["host"]: result for result in asked}
    known = []
    resolved: defaultdict[str, set[str]] = defaultdict(set)
    for instance in instances:
        host = instance["host"]
        registered = delegated.get(host) or hostvars[host].get("__redis_state") or {}
        known.append({**UNKNOWN, **(registered.get("instance_state") or {}), **instance})
        for name, addresses in (registered.get("resolved") or {}).items():
            resolved[name].update(addresses)

    candidates = {each["host"]: _other_names(each["address"], resolved) for each in known}
    meant = Counter((name, each["port"]) for each in known for name in candidates[each["host"]])
    for each in known:
        names = candidates[each["host"]]
        each["aliases"] = sorted(name for name in names if meant[name, each["port"]] == 1)
    return known


def _other_names(address: str, resolved: Mapping[str, set[str]]) -> set[str]:
    """What else means this address: its own addresses, and the names of any of them."""
    own = {address} | resolved.get(address, set())
    return (own | {name for name, addresses in resolved.items() if own & addresses}) - {address}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_instances": redis_instances}
