"""Python files of the project that are on no import path: its modules and plugins for Ansible."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils

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
