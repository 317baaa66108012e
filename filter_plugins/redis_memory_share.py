"""Filter: a part of a machine's memory, as redis.conf has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: redis_memory_share
short_description: A part of a machine's memory, as redis.conf has it
description:
  - Turns per cent into mebibytes, rounded down.
positional: memory
options:
  _input:
    description: A whole number of per cent, such as V(60%).
    type: str
    required: true
  memory:
    description: The memory of the machine in bytes, as P(proven.redis.redis_state#module) tells it.
    type: int
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
maxmemory: "{{ '60%' | proven.redis.redis_memory_share(2147483648) }}"
# -> 1228mb
"""

RETURN = r"""
_value:
  description: The share.
  type: str
"""


def redis_memory_share(share: str, memory: int) -> str:
    """See DOCUMENTATION."""
    if not memory:
        raise AnsibleFilterError(
            "redis_memory_share: how much memory the machine has cannot be read from /proc/meminfo;"
            " give redis_maxmemory in bytes"
        )
    return f"{int(memory) * int(share.rstrip('%')) // 100 // 1024**2}mb"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_memory_share": redis_memory_share}
