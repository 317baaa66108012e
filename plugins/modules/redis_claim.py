#!/usr/bin/python
"""Ansible module: claim a Redis instance for this run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_claim
short_description: Claim a Redis instance for this run
description:
  - Notes in the lock of the instance that this run is the one that changes it. From then on, the
    modules of any other run that had looked at it before fail instead of changing anything.
  - Fails where somebody has changed or claimed the instance since O(noted), or is at it for longer
    than the lock is waited for.
  - A run that has ended, or was killed, needs no release. Nothing is noted in check mode.
options:
  noted:
    description: >-
      C(last_change) of the state that P(proven.redis.redis_state#module) returned first.
    type: dict
extends_documentation_fragment: proven.redis.instance
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Claim this instance
  proven.redis.redis_claim:
    instance: "{{ instance | combine({'run': '20260131T000500Z-3f2a'}) }}"
    noted: "{{ state.instance_state.last_change }}"
"""

RETURN = r"""
claimed:
  description: Whether this run holds the instance now; it does not in check mode.
  type: bool
  returned: success
"""

from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_lock import Change


def main() -> None:
    module = InstanceModule(
        argument_spec={**ARGUMENT_SPEC, "noted": {"type": "dict"}}, supports_check_mode=True
    )
    noted = module.params["noted"]
    with module.changing("redis_claim", Change(**noted) if noted else None):
        module.exit_json(changed=False, claimed=not module.check_mode)


if __name__ == "__main__":
    main()
