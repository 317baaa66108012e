"""Filter: the replication sets of an inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: redis_sets
short_description: Names of all replication sets of an inventory whose backups are made
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
# -> [cache, redis]
"""

RETURN = r"""
_value:
  description: The names, sorted, each once.
  type: list
  elements: str
"""


def redis_sets(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """See DOCUMENTATION."""
    names = set()
    for host in groups["all"]:
        variables = hostvars[host]
        group = (
            variables.get("redis_backup_replication_group")
            or variables.get("redis_replication_group")
            or "redis"
        )
        # A backup server or a drill host has the defaults too, and is in no such group.
        if host in groups.get(group, ()):
            name = variables.get("redis_backup_set_name") or variables.get("redis_set_name")
            names.add(str(name or "redis"))
    return sorted(names)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_sets": redis_sets}
