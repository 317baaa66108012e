"""Filter: the groups that the hosts of an inventory name in a variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.role_variables import (
    RoleVariableError,
    default_of,
    given,
    groups_named,
)
from jinja2 import pass_context

DOCUMENTATION = r"""
name: inventory_groups
short_description: Groups that the hosts of an inventory name in a variable
description:
  - Gives the groups that are named in a variable such as C(redis_replication_group), by all hosts
    of the inventory and by the command line, so that a play can be for them.
  - A host that names none counts as one that names the default of the role. That default is left
    out where it is no group and another group is named.
  - Ansible knows no variables of hosts before its first play, nor for C(--list-hosts). Then it is
    the group that the command line names, else the default. So a playbook begins with another play.
options:
  _input:
    description: Name of a variable of a role of this collection.
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Set up the backup server
  hosts: "{{ 'redis_backup_server_group' | proven.redis.inventory_groups }}"
# -> [backup_server]
"""

RETURN = r"""
_value:
  description: Names of groups, in the order in which the hosts name them.
  type: list
  elements: str
"""


@pass_context
def inventory_groups(context: Mapping[str, Any], variable: str) -> list[str]:
    """See DOCUMENTATION."""
    try:
        if context.get("hostvars") is None:
            return [str(given(context, variable) or default_of(variable))]
        return groups_named(context["groups"], context["hostvars"], variable)
    except RoleVariableError as error:
        raise AnsibleFilterError(f"inventory_groups: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"inventory_groups": inventory_groups}
