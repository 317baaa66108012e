"""Filter: the replication sets of an inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: redis_sets
short_description: All replication sets of an inventory, by the names of their backups
description:
  - Reads inventory variables alone, so hosts outside C(--limit) are counted too.
positional: hostvars
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
sets: "{{ groups | redis_sets(hostvars) }}"
# -> {cache: {groups: [redis_cache], hosts: [cache-1, cache-2]}, redis: ...}
"""

RETURN = r"""
_value:
  description: >-
    By name, in the order of names, the replication C(groups) and the C(hosts) of that name, sorted.
    Taken as a list, it has the names. A name with several groups is a mistake of the inventory.
  type: dict
"""


def redis_sets(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, list[str]]]:
    """See DOCUMENTATION."""
    sets: dict[str, dict[str, set[str]]] = {}
    for host in groups["all"]:
        variables = hostvars[host]
        group = (
            variables.get("redis_backup_replication_group")
            or variables.get("redis_replication_group")
            or "redis"
        )
        # A backup server or a drill host has the defaults too, and is in no such group.
        if host in groups.get(group, ()):
            given = variables.get("redis_backup_set_name") or variables.get("redis_set_name")
            found = sets.setdefault(str(given or "redis"), {"groups": set(), "hosts": set()})
            found["groups"].add(group)
            found["hosts"].add(host)
    return {
        name: {kind: sorted(names) for kind, names in sets[name].items()} for name in sorted(sets)
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_sets": redis_sets}
