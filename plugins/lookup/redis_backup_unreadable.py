"""Lookup: why the program redis-backup could not read what a release of a server saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.proven.redis.plugins.lookup.redis_backup_zipapp import run_sources

DOCUMENTATION = r"""
name: redis_backup_unreadable
short_description: Ask the program redis-backup whether it reads what a release saves
description:
  - Asks the sources that P(proven.redis.redis_backup_zipapp#lookup) packs for the hosts, so that
    there is one list of the formats that are read.
options:
  _terms:
    description: Engine and release, such as C(redis 7.0) or C(valkey 9.1.2).
    required: true
    type: list
    elements: str
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- ansible.builtin.assert:
    that: reason == ''
    fail_msg: "{{ reason }}"
  vars:
    reason: "{{ lookup('proven.redis.redis_backup_unreadable', 'redis 8.0') }}"
"""

RETURN = r"""
_raw:
  description: Why backups of each could not be read, in words; empty where they can.
  type: list
  elements: str
"""

MAIN = """\
import json, sys
sys.path.insert(0, sys.argv[1])
from redis_backup.rdb.versions import unreadable
print(json.dumps([unreadable(*term.split(" ", 1)) for term in sys.argv[2:]]))
"""


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(
        self,
        terms: list[str],
        variables: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See DOCUMENTATION."""
        self.set_options(var_options=variables, direct=kwargs)
        done = run_sources(MAIN, *map(str, terms))
        if done.returncode:
            raise AnsibleError(
                "the program redis-backup, asked on this machine what it reads, ended with exit"
                f" status {done.returncode}: {done.stderr[-2000:]}"
            )
        return [str(reason) for reason in json.loads(done.stdout)]
