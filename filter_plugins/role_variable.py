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
from jinja2 import pass_context

DOCUMENTATION = r"""
name: role_variable
short_description: A variable with the default of the role whose variable it is
description:
  - Gives the value of a variable where it is used, or that of another host, and where nobody gave
    it a value the default of the role, which Ansible itself shows to that role alone. So the
    default is stated once, by the role.
notes:
  - Of another host, Ansible knows what the inventory and the command line give, and no variables of
    plays.
  - Fails for a variable that no role of this collection has a default for, and for a default that
    is a template, which only its role can evaluate.
positional: host
options:
  _input:
    description: Name of the variable.
    type: str
    required: true
  host:
    description: >-
      Inventory name of another host whose variable it is. By default, it is that of the present
      host, with the variables of the play.
    type: str
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
set: "{{ 'redis_set_name' | proven.redis.role_variable }}"
# -> redis
port: "{{ 'redis_backup_server_rsync_port' | proven.redis.role_variable('backup-1') }}"
# -> 873
"""

RETURN = r"""
_value:
  description: The value.
  type: raw
"""


@pass_context
def role_variable(context: Mapping[str, Any], variable: str, host: str | None = None) -> Any:
    """See DOCUMENTATION."""
    try:
        if host is None:
            return value_of(context, str(context.get("inventory_hostname")), variable)
        hostvars = context.get("hostvars")
        return value_of(variables_of(hostvars or {}, host), host, variable)
    except RoleVariableError as error:
        raise AnsibleFilterError(f"role_variable: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"role_variable": role_variable}
