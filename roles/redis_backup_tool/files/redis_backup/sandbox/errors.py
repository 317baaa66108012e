"""How a sandbox fails. The prober uses it too: nothing is imported that it could not have."""

from __future__ import annotations

from ..base.errors import ToolError


class SandboxError(ToolError):
    """The sandboxed server could not be started, or kept alive."""


class NotConfinedError(ToolError):
    """The sandboxed server is not confined as it must be; `state` is what a report says of it."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state
