"""Filter: the replication sets of an inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.role_variables import given, value_of

DOCUMENTATION = r"""
name: redis_sets
short_description: All replication sets of an inventory, by the names of their backups
description:
  - Reads inventory variables alone, so hosts outside C(--limit) are counted too.
positional: hostvars, hosts
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
  hosts:
    description: Names of hosts; sets that have none of them are left out. By default, all sets.
    type: list
    elements: str
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
sets: "{{ groups | proven.redis.redis_sets(hostvars) }}"
# -> {cache: {groups: [redis_cache], hosts: [cache-1, cache-2], engines: [redis]}, redis: ...}
"""

RETURN = r"""
_value:
  description: >-
    By name, in the order of names, the replication C(groups), the C(hosts) and the C(engines) of
    that name, each sorted. Taken as a list, it has the names. A name with several groups is a
    mistake of the inventory.
  type: dict
"""


def redis_sets(
    groups: Mapping[str, Iterable[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Iterable[str] | None = None,
) -> dict[str, dict[str, list[str]]]:
    """See DOCUMENTATION."""
    sets: dict[str, dict[str, set[str]]] = {}
    for host in groups["all"]:
        variables = hostvars[host]
        group = str(value_of(variables, host, "redis_replication_group"))
        # A backup server or a drill host has the defaults too, and is in no such group.
        if host not in groups.get(group, ()):
            continue
        name = given(variables, "redis_backup_set_name")
        name = str(name or value_of(variables, host, "redis_set_name"))
        found = sets.setdefault(name, {"groups": set(), "hosts": set(), "engines": set()})
        found["groups"].add(group)
        found["hosts"].add(host)
        found["engines"].add(str(value_of(variables, host, "redis_engine")))
    wanted = set(groups["all"] if hosts is None else hosts)
    return {
        name: {kind: sorted(names) for kind, names in sets[name].items()}
        for name in sorted(sets)
        if sets[name]["hosts"] & wanted
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_sets": redis_sets}
