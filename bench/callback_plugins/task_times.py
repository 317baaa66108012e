"""Callback: how long each task of a run took, the slowest first."""

from __future__ import annotations

DOCUMENTATION = r"""
name: task_times
type: aggregate
short_description: How long each task took
description:
  - Prints the wall time of every task after the recap, the slowest first.
  - Tasks of the linear strategy follow one another, so a task lasts until the next one starts.
requirements:
  - enabled by C(ANSIBLE_CALLBACKS_ENABLED=task_times), found by C(ANSIBLE_CALLBACK_PLUGINS)
"""

import time

from ansible.executor.stats import AggregateStats
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

SHOWN = 15


class CallbackModule(CallbackBase):
    """Measures from the start of one task to the start of the next."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._starts: list[tuple[str, float]] = []

    def _begin(self, name: str) -> None:
        self._starts.append((name, time.monotonic()))

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:  # noqa: ARG002  # given by name
        self._begin(task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        self._begin(task.get_name())

    def v2_playbook_on_stats(self, _stats: AggregateStats) -> None:
        ends = [start for _, start in self._starts[1:]] + [time.monotonic()]
        spent = [(end - start, name) for (name, start), end in zip(self._starts, ends, strict=True)]
        for seconds, name in sorted(spent, reverse=True)[:SHOWN]:
            self._display.display(f"{seconds:8.2f} s  {name}")
        self._display.display(f"{sum(seconds for seconds, _ in spent):8.2f} s  {len(spent)} tasks")
