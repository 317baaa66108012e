"""Lookup: what the program redis-backup would refuse in a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.proven.redis.plugins.lookup.redis_backup_zipapp import run_sources

DOCUMENTATION = r"""
name: redis_backup_config_problem
short_description: Read a configuration as the program redis-backup does
description:
  - Runs C(redis-backup check-config) on the controller, from the sources that
    P(proven.redis.redis_backup_zipapp#lookup) packs for the hosts. So a deployment refuses what the
    program would refuse on a host.
  - The configuration reaches the program by its standard input, as it holds secrets.
options:
  _terms:
    description: Configurations, each as JSON text.
    required: true
    type: list
    elements: str
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- ansible.builtin.assert:
    that: problem == ''
    fail_msg: "{{ problem }}"
  vars:
    text: "{{ lookup('ansible.builtin.template', 'drill.json.j2') }}"
    problem: "{{ lookup('proven.redis.redis_backup_config_problem', text) }}"
"""

RETURN = r"""
_raw:
  description: What is wrong with each, in words without a secret; empty where nothing is.
  type: list
  elements: str
"""

MAIN = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from redis_backup.commands.cli import main
sys.exit(main())
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
        return [self._problem(str(term)) for term in terms]

    def _problem(self, text: str) -> str:
        done = run_sources(MAIN, "--json", "check-config", text=text)
        try:
            return str(json.loads(done.stdout)["problem"] or "")
        except (ValueError, KeyError):
            raise AnsibleError(
                "the program redis-backup, run on this machine to check a configuration, ended with"
                f" exit status {done.returncode} and without an answer: {done.stderr[-2000:]}"
            ) from None
