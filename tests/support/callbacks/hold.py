"""A callback that holds a run of Ansible before one of its tasks, until a test lets it go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: hold
type: notification
short_description: Hold a run before one of its tasks
description:
  - E(HOLD_TASK) is a part of the task's name and E(HOLD_COUNT) which of those that match, from 1.
  - Makes the file C(reached) in E(HOLD_DIR), and waits for the file C(go) there.
"""


class CallbackModule(CallbackBase):
    """What Ansible loads."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "hold"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.left = int(os.environ["HOLD_COUNT"])

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Ansible begins no task before this returns."""
        if os.environ["HOLD_TASK"] not in task.get_name():
            return
        self.left -= 1
        if self.left:
            return
        folder = Path(os.environ["HOLD_DIR"])
        (folder / "reached").touch()
        deadline = time.monotonic() + 120
        while not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
