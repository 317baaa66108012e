#!/usr/bin/python
"""Ansible module: the marker of an operation that no other run may disturb."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_marker
short_description: Put or take away the marker of an operation on a Redis instance
description:
  - As long as the marker is there, every run but the one that O(run) names leaves the role and the
    settings of the instance alone. It survives a reboot.
  - The marker is C(/var/lib/proven-redis/UNIT.marker.json), for root alone, and replaced whole.
  - Fails where the marker of another run is there, or one that cannot be understood.
options:
  unit:
    description: Name of the systemd unit of the instance.
    type: str
    required: true
  state:
    description: Whether the marker is to be there.
    type: str
    choices: [present, absent]
    default: present
  run:
    description: Id of the run whose operation it is.
    type: str
    required: true
  kind:
    description: What the operation is; required with O(state=present).
    type: str
    choices: [switchover, restore]
  phase:
    description: What it is about to do; required with O(state=present).
    type: str
  deadline:
    description: When it should have ended, UTC; required with O(state=present).
    type: str
  settings:
    description: Settings that it changes for a while, with their values before.
    type: dict
    default: {}
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Note that a restore begins
  proven.redis.redis_marker:
    unit: redis-server.service
    run: 20260131T000500Z-3f2a
    kind: restore
    phase: fence
    deadline: "2026-01-31T01:05:00Z"
"""

RETURN = r"""
before:
  description: The marker that was there, none where there was none.
  type: dict
  returned: always
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import redis_marker
from ansible_collections.proven.redis.plugins.module_utils.redis_marker import Marker, MarkerError


def main() -> None:
    spec: dict[str, Any] = {
        "unit": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "run": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": list(redis_marker.KINDS)},
        "phase": {"type": "str"},
        "deadline": {"type": "str"},
        "settings": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec=spec,
        required_if=[("state", "present", ("kind", "phase", "deadline"))],
        supports_check_mode=True,
    )
    wanted = module.params
    path = redis_marker.path_of(wanted["unit"])
    try:
        before = redis_marker.read(wanted["unit"])
        if before and before.run != wanted["run"]:
            module.fail_json(msg=f"Nothing was changed: {before}, says {path}.")
        module.exit_json(
            changed=settle(module, before), before=before._asdict() if before else None
        )
    except MarkerError as error:
        module.fail_json(
            msg=f"{path} cannot be understood: {error}. Nothing was changed. See what put it there."
        )
    except OSError as error:
        module.fail_json(msg=f"{path} could not be changed: {error}.")


def settle(module: AnsibleModule, before: Marker | None) -> bool:
    """Put the marker there or take it away; tell whether that changed anything."""
    wanted = module.params
    if wanted["state"] == "absent":
        return bool(before) and (module.check_mode or redis_marker.remove(wanted["unit"]))
    settings = {name: str(value) for name, value in wanted["settings"].items()}
    began = before.began if before else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    marker = Marker(
        wanted["kind"], wanted["run"], wanted["phase"], began, wanted["deadline"], settings
    )
    if module.check_mode:
        return marker != before
    return redis_marker.write(wanted["unit"], marker)


if __name__ == "__main__":
    main()
