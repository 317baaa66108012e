"""Variables of the collection's roles as other roles and playbooks read them.

Ansible shows a role's defaults to that role alone. Whoever else reads one of its variables, another
role or a playbook, would have to state the default a second time; here it is read from the file
where the role states it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
# The default of every address, and the only template among the defaults that is evaluated here.
HOST_ADDRESS = "{{ ansible_host | default(inventory_hostname) }}"


class RoleVariableError(Exception):
    """A variable that no role of the collection has; the message names it."""


# Written in C where it is there, and then ten times as fast: each worker of Ansible reads anew.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read(role: str, file: str) -> dict[str, Any]:
    text = (ROLES / role / file).read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=_Loader) or {})  # noqa: S506  # a safe one


@cache
def defaults(role: str) -> dict[str, Any]:
    """The role's defaults as its file has them, templates as text."""
    return _read(role, "defaults/main.yml")


@cache
def options(role: str) -> dict[str, dict[str, Any]]:
    """What the role's argument specification says of the variables of its main entry point."""
    entries = _read(role, "meta/argument_specs.yml")["argument_specs"]
    return dict(entries.get("main", {}).get("options") or {})


@cache
def known_names() -> frozenset[str]:
    """All variables of all roles and entry points."""
    roles = [path.name for path in ROLES.iterdir() if (path / "meta/argument_specs.yml").exists()]
    return frozenset(
        name
        for role in roles
        for entry in _read(role, "meta/argument_specs.yml")["argument_specs"].values()
        for name in entry.get("options") or ()
    )


def default_of(name: str) -> Any:
    """The default of a variable, in the role that the name begins with. Where several do, as
    redis_backup and redis_backup_server, it is the longest.

    Raises:
        RoleVariableError: no role has a default for it.
    """
    roles = (path.name for path in ROLES.iterdir())
    owner = max((role for role in roles if name.startswith(f"{role}_")), key=len, default=None)
    if owner is None or name not in defaults(owner):
        raise RoleVariableError(f"no role of the collection has a default for {name}")
    return defaults(owner)[name]


def given(variables: Mapping[str, Any], name: str) -> Any:
    """The value of a variable; None for one that is not defined, or empty."""
    value = variables.get(name)
    return None if value == "" else value


def value_of(variables: Mapping[str, Any], host: str, name: str) -> Any:
    """The value of a variable among those of a host, else the default of its role.

    Raises:
        RoleVariableError: no role has a default for it, or one that only the role can evaluate.
    """
    value = given(variables, name)
    if value is not None:
        return value
    default = default_of(name)
    if default == HOST_ADDRESS:
        return given(variables, "ansible_host") or host
    if isinstance(default, str) and "{{" in default:
        raise RoleVariableError(f"the default of {name} is a template that only its role evaluates")
    return default


def variables_of(hostvars: Mapping[str, Mapping[str, Any]], host: str) -> Mapping[str, Any]:
    """The variables of a host, none where the inventory has no such host. Ansible gathers them anew
    at each access.
    """
    # Ansible's hostvars has a value for any host, so get() would never return its default.
    return hostvars[host] if host in hostvars else {}  # noqa: SIM401


def groups_named(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    name: str,
) -> list[str]:
    """The groups that the hosts of the inventory give in a variable such as
    `redis_replication_group`, in the order of the hosts.

    A host that gives none stands for the default of the role. The default is left out where it is
    no group and another group is named: then it is that of hosts which do not count.
    """
    default = str(default_of(name))
    named = [str(value_of(variables_of(hostvars, host), host, name)) for host in groups["all"]]
    unique = list(dict.fromkeys(named)) or [default]
    return [group for group in unique if group != default or group in groups] or unique
