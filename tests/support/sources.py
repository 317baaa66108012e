"""Run the project's modules for Ansible in this process."""

from __future__ import annotations

import contextlib
import io
import json
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


def answer(module: ModuleType, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """What a module for Ansible answers, run as Ansible would."""
    output = io.StringIO()
    with (
        patch_module_args({**arguments, "_ansible_check_mode": check}),
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit),
    ):
        module.main()
    return dict(json.loads(output.getvalue()))
