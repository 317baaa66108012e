"""The filter redis_topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.redis_set import TopologyError
from ansible_collections.proven.redis.plugins.module_utils.redis_topology import decide

DOCUMENTATION = r"""
name: redis_topology
short_description: Decide who is the master of a replication set
description:
  - Decides what every host of a set has to be, from what all of them say. The master of the
    inventory counts only while no host has data; after that the live state does. Whatever could
    cost data stops the run.
  - "The rows of the decision, of which the first that matches is taken:"
  - 1. A host refuses the password, or is not ours. Stop.
  - 2. Two or more masters are up that hold keys or have replicas. Stop.
  - 3. A master is up without keys, while another host has keys that it does not follow. Stop.
  - 4. Exactly one master is up. It is the master. A host that is down and whose own file says
    master stops the run, unless O(rejoin_as_replica) names it; so does a host that cannot be
    reached.
  - 5. Replicas are up, and no master. The one host that all of them name, down with its data, is
    started in place.
  - 6. No host is up, and some have data. The only one whose file has no C(replicaof), and which
    has the data, starts first.
  - 7. No host has data. The set starts as the inventory says.
  - 8. Anything else. Stop.
positional: _input, intended_master
options:
  _input:
    description:
      - One dictionary per host of the set with C(host), C(address), C(port), C(state) (V(virgin),
        V(up), V(down), V(unreachable), V(auth_refused) or V(not_ours)) and, to be shown,
        C(detail).
      - Where the state is V(up), also C(role) (V(master) or V(replica)), C(keys),
        C(connected_replicas), C(offset), and of a replica C(master_host), C(master_port),
        C(link_up).
      - Where it is V(up) or V(down), also C(keys_on_disk), and C(file_replicaof), the address and
        port after C(replicaof) in redis.conf, or null.
      - C(aliases) may list further names of the address.
    type: list
    elements: dict
    required: true
  intended_master:
    description: The host that is the master of a set without any data.
    type: str
    required: true
  rejoin_as_replica:
    description: Hosts whose own data may be given up for that of the master.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Stop unless it is certain who the master is
  ansible.builtin.assert:
    that: decision.action == 'proceed'
    fail_msg: "{{ [decision.reason] + decision.report }}"
  vars:
    decision: >-
      {{ instances | proven.redis.redis_topology('redis-1', rejoin_as_replica=['redis-3']) }}
"""

RETURN = r"""
_value:
  description: The decision.
  type: dict
  contains:
    row:
      description: The number of the row that matched.
      type: int
    action:
      description: V(proceed) or V(stop).
      type: str
    master:
      description: The host that is or becomes the master; null where that is not certain.
      type: str
    start_first:
      description: The host that has to be started, and ready, before the others; else null.
      type: str
    plan:
      description:
        - What every host has to be. Empty when stopping.
        - C(does) is V(bootstrap) (starts a new set), V(join) (starts as a new replica), V(start)
          (its server is down), V(repoint) (follows somebody else), V(persist) (only its file is
          not up to date) or V(keep).
      type: dict
      sample:
        redis-1: {role: master, replicaof: null, does: keep}
        redis-2: {role: replica, replicaof: [192.0.2.11, 6379], does: join}
    reason:
      description: One sentence that says why, and when stopping what to do.
      type: str
    report:
      description: A line per host that says what it said.
      type: list
      elements: str
"""


def redis_topology(
    instances: Any, intended_master: Any, rejoin_as_replica: Any = None
) -> dict[str, Any]:
    """The decision about a set; see DOCUMENTATION."""
    if not isinstance(instances, (list, tuple)):
        raise AnsibleFilterError(
            f"redis_topology: it takes a list of hosts, not {type(instances).__name__}"
        )
    try:
        return decide(instances, intended_master, rejoin_as_replica or ())
    except TopologyError as error:
        raise AnsibleFilterError(f"redis_topology: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by name."""
        return {"redis_topology": redis_topology}
