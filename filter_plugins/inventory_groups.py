"""Filter: the groups that the hosts of an inventory name in a variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.role_variables import (
    RoleVariableError,
    groups_named,
)

DOCUMENTATION = r"""
name: inventory_groups
short_description: Groups that the hosts of an inventory name in a variable
description:
  - Gives the groups that are named in a variable such as C(redis_replication_group), from all hosts
    of the inventory and from the command line, so that a play can be for them. Before a play has
    its hosts, Ansible knows no host's variables otherwise.
  - A host that names none counts as one that names the default of the role. Groups that do not
    exist are left out as long as another is left.
positional: hostvars, variable
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
  variable:
    description: Name of a variable of a role of this collection.
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Set up the backup server
  hosts: "{{ groups | proven.redis.inventory_groups(hostvars, 'redis_backup_server_group') }}"
# -> [backup_server]
"""

RETURN = r"""
_value:
  description: Names of groups, in the order in which the hosts name them.
  type: list
  elements: str
"""


def inventory_groups(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    variable: str,
) -> list[str]:
    """See DOCUMENTATION."""
    try:
        return groups_named(groups, hostvars, variable)
    except RoleVariableError as error:
        raise AnsibleFilterError(f"inventory_groups: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"inventory_groups": inventory_groups}
