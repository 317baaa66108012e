"""Filter: a variable of a role as another role or a playbook reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.role_variables import (
    RoleVariableError,
    value_of,
    variables_of,
)

DOCUMENTATION = r"""
name: role_variable
short_description: A variable of a host with the default of the role whose variable it is
description:
  - Gives what the inventory or the command line says for a host, and where they say nothing the
    default of the role, which Ansible itself shows to that role alone. So the default is stated
    once, by the role.
notes:
  - Fails for a variable that no role of this collection has a default for, and for a default that
    is a template, which only its role can evaluate.
positional: hostvars, host, variable
options:
  _input:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  host:
    description: Inventory name of the host whose variable it is.
    type: str
    required: true
  variable:
    description: Name of the variable.
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
port: "{{ hostvars | proven.redis.role_variable('backup-1', 'redis_backup_server_rsync_port') }}"
# -> 873
"""

RETURN = r"""
_value:
  description: The value.
  type: raw
"""


def role_variable(hostvars: Mapping[str, Mapping[str, Any]], host: str, variable: str) -> Any:
    """See DOCUMENTATION."""
    try:
        return value_of(variables_of(hostvars, host), host, variable)
    except RoleVariableError as error:
        raise AnsibleFilterError(f"role_variable: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"role_variable": role_variable}
