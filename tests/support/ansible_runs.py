"""Run Ansible's programs as somebody who has set nothing up, and modules in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def ansible(
    program: str, *words: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs, those beside this Python. Its configuration is that of the
    directory: by default, the one that the project ships.
    """
    kept = {name: value for name, value in os.environ.items() if "ANSIBLE" not in name}
    return subprocess.run(
        [str(BIN / program), *words],
        cwd=cwd,
        env={**kept, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def good(done: subprocess.CompletedProcess[str]) -> str:
    """What a program printed that has to end well."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
