"""Filter: the hosts of a replication set as addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: redis_members
short_description: Hosts of a replication set, with the address and port of each
description:
  - Turns the host names of a group into a list with the address and port under which the others
    reach each instance, from inventory variables alone: hosts outside C(--limit) are known too.
positional: hostvars, port, key
options:
  _input:
    description: Inventory names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
  port:
    description: Port of the instances that set no C(redis_port) of their own in the inventory.
    type: int
    default: 6379
  key:
    description: What the host's name is called in each mapping.
    type: str
    default: host
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
members: "{{ groups['redis'] | redis_members(hostvars) }}"
# -> [{host: redis-1, address: 192.168.1.2, port: 6379}, ...]
"""

RETURN = r"""
_value:
  description: One mapping with C(host) (or I(key)), C(address), C(port) per host, in this order.
  type: list
  elements: dict
"""


def redis_members(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    port: int = 6379,
    key: str = "host",
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    members = []
    for host in hosts:
        variables = hostvars[host]
        address = variables.get("redis_address") or variables.get("ansible_host") or host
        members.append(
            {
                key: host,
                "address": str(address),
                "port": int(variables.get("redis_port") or port),
            }
        )
    return members


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_members": redis_members}
