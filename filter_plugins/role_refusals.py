"""Filter: what speaks against the variables of a host for one role."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible import release
from ansible_collections.proven.redis.plugins.module_utils.role_variables import variables_of
from ansible_collections.proven.redis.plugins.module_utils.value_checks import refusals
from jinja2 import pass_context

DOCUMENTATION = r"""
name: role_refusals
short_description: What speaks against the variables of a host for a role
description:
  - Checks every variable of a role against the role's argument specification, without turning one
    type into another, and against the form that it must have. Then the rules of the role.
  - The values are those that a template sees at this place, from the inventory, the command line,
    the play, the role, or facts.
  - Names of variables that are close to one of this collection, and that nothing reads, are
    reasons too.
  - A value or a rule that cannot be computed is one more reason and hides none of the others.
positional: rules
options:
  _input:
    description: Name of the role.
    type: str
    required: true
  rules:
    description: >-
      Rules of the role, each with C(holds) and C(say). Looked at when every value is as it must be.
    type: list
    elements: dict
    default: []
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
refusals: "{{ 'redis_backup' | proven.redis.role_refusals(rules) }}"
# -> ["redis_backup_schedule is the text '5 24 * * *': '24' is no hour (0 to 23); it must be ..."]
"""

RETURN = r"""
_value:
  description: Sentences; none where nothing speaks against the values.
  type: list
  elements: str
"""

OLDEST = (2, 19)


@pass_context
def role_refusals(context: Any, role: str, rules: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """See DOCUMENTATION."""
    if tuple(int(part) for part in release.__version__.split(".")[:2]) < OLDEST:
        return [
            f"This is ansible-core {release.__version__}. Before 2.19, numbers and lists that come"
            " from templates are text, and what is written of them cannot be read. Install 2.19 or"
            " newer; `make venv` does."
        ]
    return refusals(
        str(role),
        list(context.get_all()),
        context.__getitem__,
        variables_of(context.get("hostvars") or {}, str(context.get("inventory_hostname"))),
        rules,
    )


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"role_refusals": role_refusals}
