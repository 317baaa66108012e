"""Filter: whether a variable of this collection is computed from facts of its host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.variable_names import PREFIX

DOCUMENTATION = r"""
name: asks_for_facts
short_description: Whether variables of a host are computed from its facts
description:
  - Reads the templates of the variables redis_*, and of those that they name, without computing
    them. So facts are gathered where somebody asks for them, and nobody else waits.
positional: hostvars
options:
  _input:
    description: Inventory name of the host.
    type: str
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- ansible.builtin.setup:
  when: inventory_hostname | proven.redis.asks_for_facts(hostvars)
"""

RETURN = r"""
_value:
  description: Whether one of them names C(ansible_facts), or a fact as a variable of its own.
  type: bool
"""

# Ansible's own, which are there without facts.
MAGIC = re.compile(
    "ansible_(host|port|user|version|check_mode|managed|limit|connection|.*_python_interpreter"
    "|play_.*|become.*|ssh_.*|role_.*|run_tags|search_path|inventory_sources|config_file|verbosity"
    "|playbook_python|forks|diff_mode|skip_tags|collection_name|loop.*|builtin)"
)
WORD = re.compile(r"[A-Za-z_]\w*")


def asks(variables: Mapping[str, Any]) -> bool:
    """Whether a variable redis_* among these, as they are written, is computed from facts."""
    seen: set[str] = set()
    names = [name for name in variables if name.startswith(PREFIX)]
    while names:
        name = names.pop()
        seen.add(name)
        for word in _words(variables[name]):
            if word == "ansible_facts":
                return True
            if word in variables:
                names += [word] if word not in seen else []
            elif word.startswith("ansible_") and not MAGIC.fullmatch(word):
                return True
    return False


def _words(value: Any) -> Iterator[str]:
    """The words of all templates in a value."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value:
            yield from WORD.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)


def asks_for_facts(host: str, hostvars: Any) -> bool:
    """See DOCUMENTATION."""
    return asks(hostvars.raw_get(host))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"asks_for_facts": asks_for_facts}
