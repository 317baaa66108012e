"""Python files of the project that are on no import path: its modules and plugins for Ansible."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.testing import patch_module_args

import module_utils.whole_file

ROOT = Path(__file__).resolve().parents[2]


def imported(path: str) -> ModuleType:
    """The module in a file, named from the root of the project."""
    # Where Ansible puts the project's own beside those that it ships; one is the tests' own too.
    if str(ROOT / "module_utils") not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
    sys.modules["ansible.module_utils.whole_file"] = module_utils.whole_file
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


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
