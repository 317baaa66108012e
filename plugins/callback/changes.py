"""Callback: what a run changed or shows, and not what was right already."""

from __future__ import annotations

from typing import Any

from ansible import constants as C  # noqa: N812
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = r"""
name: changes
type: stdout
short_description: Show what a run changes, shows or refuses, and not what is right already
description:
  - The default output of Ansible without the tasks that found everything as it has to be and
    without those that were skipped. Changes and their differences, failures, warnings, what a task
    M(ansible.builtin.debug#module) shows and the recap are there, and the names of the plays, by
    which a run is seen to go on.
  - A failure that several hosts share, in the same words and by the same task, is shown once.
  - With C(-v) and more, everything is shown as by the default output.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
author:
  - The maintainers of this project
"""

SHOWN = frozenset(["ansible.builtin.debug", "ansible.legacy.debug", "debug"])
REFUSING = frozenset(["assert", "fail"])
QUIET = frozenset(["display_ok_hosts", "display_skipped_hosts"])


class CallbackModule(Default):
    """See DOCUMENTATION. Ansible's own class asks for these options before it shows anything."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "proven.redis.changes"

    def __init__(self) -> None:
        super().__init__()
        self._showing = False
        self._refused: dict[tuple[str, str], str] = {}  # by task and message: the first host

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        if option in QUIET and not self._showing and not self._display.verbosity:
            return False
        return super().get_option(option, hostvars)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._show(result, super().v2_runner_on_ok)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._show(result, super().v2_runner_item_on_ok)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        host, message = result.host.get_name(), _message(result)
        first = self._refused.setdefault((result.task._uuid, message), host) if message else host
        if first == host or self._display.verbosity:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._display.display(
            f"fatal: [{self.host_label(result)}]: FAILED! => the same as {first}",
            color=C.COLOR_ERROR,
        )
        if ignore_errors:
            self._display.display("...ignoring", color=C.COLOR_SKIP)

    def _handle_warnings_and_exception(self, result: Any) -> None:
        # Ansible shows the message of a failure by itself, with the place of the task, and in the
        # result again. Where a task did what it was written for, its place says nothing.
        if not self._display.verbosity and _message(result):
            result.result.pop("exception", None)
        super()._handle_warnings_and_exception(result)

    def _show(self, result: Any, how: Any) -> None:
        """A result that is no change: only where it was made to be shown, or has a warning."""
        self._showing = result.task.action in SHOWN or bool(
            result.result.get("warnings") or result.result.get("deprecations")
        )
        try:
            how(result)
        finally:
            self._showing = False


def _message(result: Any) -> str:
    """The words of a refusal, of an assertion or of a module of this collection; else nothing."""
    action, message = str(result.task.action), result.result.get("msg")
    refuses = action.startswith("proven.redis.") or action.rpartition(".")[2] in REFUSING
    is_written = isinstance(message, str) and "module_stderr" not in result.result
    return str(message) if refuses and is_written and not result.task.loop else ""
