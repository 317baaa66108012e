"""Filter: what has to be done so that systemd's units run as their files say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.systemd_time import seconds

DOCUMENTATION = r"""
name: systemd_actions
short_description: What to start, restart and reload so that units run as their files say
description:
  - A unit is restarted when this run has changed its file, when systemd has not read its file since
    (C(NeedDaemonReload)), and when the file is newer than the start, as a reload by somebody else
    makes systemd forget that it had not read it.
positional: enabled, modified, changed
options:
  _input:
    description: >-
      What the filter P(systemd_units#filter) returns, with the properties C(Id), C(ActiveState),
      C(UnitFileState), C(NeedDaemonReload) and C(ActiveEnterTimestamp), the last in UTC.
    type: list
    elements: dict
    required: true
  enabled:
    description: Names of the units that are to run, now and after a boot. Others are only reloaded.
    type: list
    elements: str
    required: true
  modified:
    description: When each file was last written, in seconds since 1970, by its path.
    type: dict
    required: true
  changed:
    description: Paths of the files that this run has changed.
    type: list
    elements: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
loop: "{{ shown.stdout | systemd_units | systemd_actions(['a.timer'], made.modified, made.paths) }}"
# -> [{unit: a.timer, state: restarted, reload: true}, {unit: a.service, state: null, reload: true}]
"""

RETURN = r"""
_value:
  description: >-
    For each unit that needs something its name C(unit), the C(state) to bring it to (V(started),
    V(restarted), or none), and whether systemd has to C(reload) its files before.
  type: list
  elements: dict
"""


def systemd_actions(
    units: Sequence[Mapping[str, str]],
    enabled: Collection[str],
    modified: Mapping[str, float],
    changed: Collection[str],
) -> list[dict[str, Any]]:
    """What has to be done so that every unit runs as its file says; see DOCUMENTATION."""
    actions: list[dict[str, Any]] = []
    for unit in units:
        path = f"/etc/systemd/system/{unit['Id']}"
        reload = unit["NeedDaemonReload"] == "yes" or path in changed
        state = None
        if unit["Id"] in enabled:
            if unit["ActiveState"] != "active":
                state = "started"
            elif reload or modified.get(path, 0) // 1 > seconds(unit["ActiveEnterTimestamp"]):
                state = "restarted"
            elif unit["UnitFileState"] != "enabled":
                state = "started"
        if state or reload:
            actions.append({"unit": unit["Id"], "state": state, "reload": reload})
    return actions


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_actions": systemd_actions}
