"""Filter: save points in any of their spellings, as the arguments of lines in redis.conf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.save_points import (
    SavePointsError,
    save_points,
)

DOCUMENTATION = r"""
name: redis_save_points
short_description: Save points of Redis as pairs of numbers
description:
  - Takes a list of dictionaries with C(seconds) and C(changes), or the text of redis.conf, of one
    line, of several, or as a list of texts.
options:
  _input:
    description: Save points.
    type: raw
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
points: "{{ '900 1 300 10' | proven.redis.redis_save_points }}"
# -> [[900, 1], [300, 10]]
"""

RETURN = r"""
_value:
  description: Pairs of seconds and changes; none for empty text.
  type: list
  elements: list
"""


def redis_save_points(value: Any) -> list[list[int]]:
    """See DOCUMENTATION."""
    try:
        return save_points(value)
    except SavePointsError as error:
        raise AnsibleFilterError(f"redis_save_points: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_save_points": redis_save_points}
