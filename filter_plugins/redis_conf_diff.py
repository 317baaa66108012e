"""The filter redis_conf_diff."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Modules get this code as ansible.module_utils.*; on the controller that name does not reach the
# project's own directory, so filters import it from the project's root. Same lines in every filter.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.redis_conf import ConfError, compare, mask

DOCUMENTATION = r"""
name: redis_conf_diff
short_description: Compare two redis.conf by what they mean
description:
  - Lists the settings in which two configurations differ. Order, comments, blank lines, quotes,
    units, old and new names of a directive make no difference, nor does what Redis adds when it
    rewrites its file.
  - An empty list means that a server would behave the same with both.
positional: _input, current
options:
  _input:
    description: The text of the desired configuration.
    type: str
    required: true
  current:
    description: The text of the current configuration.
    type: str
    required: true
  effective:
    description:
      - C(CONFIG GET *), as a dictionary, of a server that runs with the desired configuration.
      - Settings that only the current configuration has, but with the value that this server has
        anyway, are no difference then.
    type: dict
  secrets:
    description: Whether passwords, users and renamed commands are shown as they are, rather than
      masked.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what a new configuration would change
  ansible.builtin.debug:
    msg: "{{ 'maxmemory 1gb' | redis_conf_diff('maxmemory 1024mb\nslave-priority 50') }}"
# [{'name': 'replica-priority', 'current': '50', 'desired': None}]
"""

RETURN = r"""
_value:
  description:
    - A list of differences, first those of the desired configuration in its order, then what only
      the current one has.
    - Names are today's (C(replicaof) for C(slaveof)), values normalised (bytes, lower case). A
      configuration without the setting has null for its value.
    - A user, a renamed command, a module and an include are settings of their own, such as C(user
      alice).
  type: list
  elements: dict
  contains:
    name:
      description: The setting.
      type: str
    current:
      description: Its value in the current configuration, or null.
      type: str
    desired:
      description: Its value in the desired configuration, or null.
      type: str
"""


def redis_conf_diff(
    desired: Any, current: Any, effective: Any = None, secrets: bool = False
) -> list[dict[str, str | None]]:
    """The differences between two configurations; see DOCUMENTATION."""
    for name, value in (("desired", desired), ("current", current)):
        if not isinstance(value, str):
            raise AnsibleFilterError(
                f"redis_conf_diff: the {name} configuration has to be the text of a redis.conf,"
                f" not {type(value).__name__}"
            )
    if effective is not None and not isinstance(effective, Mapping):
        raise AnsibleFilterError(
            "redis_conf_diff: effective has to be a dictionary (the answer of CONFIG GET *),"
            f" not {type(effective).__name__}"
        )
    try:
        changes = compare(desired, current, effective)
    except ConfError as error:
        raise AnsibleFilterError(f"redis_conf_diff: {error}") from error
    return [(change if secrets else mask(change))._asdict() for change in changes]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by name."""
        return {"redis_conf_diff": redis_conf_diff}
