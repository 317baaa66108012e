"""The filter redis_info."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Modules get this code as ansible.module_utils.*; on the controller that name does not reach the
# project's own directory, so filters import it from the project's root. Same lines in every filter.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.redis_info import InfoError, parse_info

DOCUMENTATION = r"""
name: redis_info
short_description: Turn the text of Redis's INFO into data
description:
  - Turns the answer of C(INFO) (of Redis or Valkey) into a dictionary per section, with numbers as
    numbers.
  - The names of the sections are in lower case, as in C(INFO replication).
positional: _input
options:
  _input:
    description: The answer of C(INFO), with its section headers. An error reply or an empty text
      fails.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Ask the server
  ansible.builtin.command: redis-cli -e INFO
  register: info
  changed_when: false

- name: Show how far each replica is
  ansible.builtin.debug:
    msg: "{{ (info.stdout | redis_info).replication.replicas | items2dict('ip', 'offset') }}"

- name: Count the keys of database 0
  ansible.builtin.debug:
    msg: "{{ (info.stdout | redis_info).keyspace['0']['keys'] }}"
"""

RETURN = r"""
_value:
  description:
    - A dictionary per section, with its fields.
    - C(slave0), C(slave1) and so on are the list C(replicas) of the section C(replication), each a
      dictionary.
    - C(db0) and so on are the entries C("0") and so on of the section C(keyspace), each a
      dictionary.
    - C(cmdstat_*), C(errorstat_*) and C(latency_percentiles_usec_*) are dictionaries under these
      names.
    - C(module) lines are the list C(modules) of their section.
  type: dict
  sample:
    replication:
      role: master
      connected_slaves: 1
      master_repl_offset: 812
      replicas:
        - {ip: 192.0.2.12, port: 6379, state: online, offset: 812, lag: 0}
    keyspace:
      "0": {keys: 3, expires: 1, avg_ttl: 3599711}
"""


def redis_info(text: Any) -> dict[str, Any]:
    """INFO as data; see DOCUMENTATION."""
    try:
        return parse_info(text)
    except InfoError as error:
        raise AnsibleFilterError(f"redis_info: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by name."""
        return {"redis_info": redis_info}
