"""A real redis-server for every test, also on a machine that has none installed."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import servers
from tests.tool.backup_lab import dump_of_server

# How long an example takes depends on what else this machine does.
settings.register_profile("any-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-load")


def pytest_configure() -> None:
    """Where PATH has no redis-server, put one there that was unpacked from its Debian package:
    installing the package would start a server on the machine of whoever runs the tests.
    """
    if shutil.which("redis-server") is not None:
        return
    *loader, server = servers.of_release("7.0").command
    directory = Path(tempfile.mkdtemp(prefix="redis-server-"))
    for name in ("redis-server", "redis-check-rdb", "redis-check-aof"):
        command = shlex.join([*loader, str(Path(server).with_name(name))])
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A dump of a real server, made now."""
    return dump_of_server(tmp_path_factory.mktemp("dump"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What campaigns counted (their fixtures `tell` and `table`), passed or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            told = [str(text) for name, text in report.user_properties if name == "figures"]
            if told:
                terminalreporter.write_sep("-", report.nodeid.rpartition("/")[2])
                for text in told:
                    terminalreporter.write_line(text)
