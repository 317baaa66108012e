"""Errors that end a command, each with the exit code that it means.

A message says what was seen, what it means and what to do about it, in one line; the command line
prints it as it is.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_NOW = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, nothing is to be done now


class ToolError(Exception):
    """Something failed or was disproved: exit 1."""

    exit_code = EXIT_FAILED


class NotNow(ToolError):  # noqa: N818 - not an error: it ends a run that has nothing to do
    """A lock is held, or it is another host's turn: exit 75, no alarm."""

    exit_code = EXIT_NOT_NOW


class UsageError(ToolError):
    """The command line or the configuration cannot be used as it is: exit 2."""

    exit_code = EXIT_USAGE
