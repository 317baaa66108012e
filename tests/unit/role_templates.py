"""Render the roles' templates as Ansible would: with its own engine, inventory and variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[2]

INVENTORY = """\
---
redis:
  children:
    redis_master:
      hosts:
        redis-1: {redis_address: 192.168.1.2}
    redis_replicas:
      hosts:
        redis-2: {redis_address: 192.168.1.3}
        redis-3: {ansible_host: 192.168.1.4}
  vars:
    redis_requirepass: a-password
    redis_backup_rsync_secret: a-secret
backup_server:
  hosts:
    backup-1: {redis_backup_server_address: 192.168.1.122, redis_backup_server_rsync_port: 8873}
restore_drill:
  hosts:
    drill-1: {redis_restore_drill_address: 192.168.1.123}
"""


class Role:
    """A role on a host of a small inventory, ready to render."""

    def __init__(self, name: str, directory: Path) -> None:
        self._directory = ROOT / "roles" / name
        self._loader = DataLoader()
        sources = directory / "hosts.yml"
        sources.write_text(INVENTORY, encoding="utf-8")
        self._inventory = InventoryManager(loader=self._loader, sources=[str(sources)])
        self._variables = VariableManager(loader=self._loader, inventory=self._inventory)
        # It makes itself known to the variable manager, which then gives `hostvars` to every host.
        HostVars(self._inventory, self._variables, self._loader)

    def _file(self, relative: str) -> dict[str, Any]:
        path = self._directory / relative
        if not path.exists():
            return {}
        return self._loader.load_from_file(str(path), trusted_as_template=True) or {}

    def variables(self, host: str, **extra: object) -> dict[str, Any]:
        """What a template of the role sees on the host, in Ansible's order of precedence. `extra`
        is as if by -e: `hostvars` has it too.
        """
        self._variables._extra_vars = dict(extra)
        return {
            **self._file("defaults/main.yml"),
            **self._variables.get_vars(host=self._inventory.get_host(host)),
            **self._file("vars/main.yml"),
            "ansible_managed": "Ansible managed",
            "ansible_play_hosts": [item.name for item in self._inventory.get_hosts()],
            **extra,
        }

    def value(self, expression: str, host: str, **extra: object) -> Any:
        """What an expression of the role gives on the host."""
        return self._templar(host, extra).template(trust_as_template(f"{{{{ {expression} }}}}"))

    def render(self, template: str, host: str, **extra: object) -> str:
        """The text that `ansible.builtin.template` would write on the host."""
        path = self._directory / "templates" / template
        text = trust_as_template(path.read_text(encoding="utf-8"))
        return str(self._templar(host, extra).template(text))

    def _templar(self, host: str, extra: Mapping[str, object]) -> Templar:
        return Templar(loader=self._loader, variables=self.variables(host, **extra))
