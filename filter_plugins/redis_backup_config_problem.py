"""Filter: what the backup tool would refuse in a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The tool itself, as its role installs it: what it refuses on a host, a deployment refuses before.
sys.path.append(str(Path(__file__).resolve().parents[1] / "roles" / "redis_backup_tool" / "files"))

from redis_backup import assertions, config, fields
from redis_backup.errors import ToolError

DOCUMENTATION = r"""
name: redis_backup_config_problem
short_description: What the backup tool would refuse in a configuration
description:
  - Reads a configuration of the tool C(redis-backup) as the tool does.
options:
  _input:
    description: The JSON text of the configuration.
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- ansible.builtin.assert:
    that: problem == ''
    fail_msg: "{{ problem }}"
  vars:
    problem: "{{ lookup('ansible.builtin.file', 'drill.json') | redis_backup_config_problem }}"
"""

RETURN = r"""
_value:
  description: What is wrong, in words; empty when nothing is.
  type: str
"""


def redis_backup_config_problem(text: str) -> str:
    """What is wrong with the configuration; see DOCUMENTATION. No secret is in it."""
    where = "configuration"
    try:
        found = config.parse(fields.parse_json(str(text), where), Path(where))
        if isinstance(found, config.DrillConfig):
            for name, drilled in found.sets.items():
                assertions.parse(list(drilled.assertions), f"set {name}")
    except ToolError as problem:
        return str(problem)
    return ""


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_backup_config_problem": redis_backup_config_problem}
