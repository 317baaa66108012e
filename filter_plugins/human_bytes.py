"""Filter: a size for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils import sizes

DOCUMENTATION = r"""
name: human_bytes
short_description: A size for people, in binary units
description:
  - Writes a number of bytes as the program redis-backup does, so that one unit is used everywhere.
    The filter P(ansible.builtin.human_readable#filter) writes C(MB) for what is MiB.
options:
  _input:
    description: Bytes.
    type: int
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
size: "{{ 1677721 | proven.redis.human_bytes }}"
# -> 1.6 MiB
"""

RETURN = r"""
_value:
  description: The size with its unit.
  type: str
"""


def human_bytes(count: Any) -> str:
    """See DOCUMENTATION."""
    return str(sizes.human_bytes(int(count)))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"human_bytes": human_bytes}
