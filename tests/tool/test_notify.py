"""A failed job tells a person, by a program that may itself fail, hang, or never stop talking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis_backup.base.errors import UsageError
from redis_backup.config import reader

from tests.tool.backup_lab import PACKAGE

CONFIG: dict[str, Any] = {
    "kind": "drill",
    "host": "drill-1",
    "sets": {},
    "transport": {
        "server": "192.0.2.1",
        "port": 873,
        "user": "drill-1",
        "secret": "s3cret-of-the-transport",
        "inbox_module": "inbox",
        "store_module": "store",
    },
    "work": "/var/lib/redis-backup/drill",
    "require_sandbox": True,
    "load_timeout_seconds": 60,
    "servers": {},
}
# What `tell` is given: the time limit is that of a test.
TELL = """
import sys
from redis_backup.base import notify
env = notify.environment(REDIS_BACKUP_JOB="create")
print(notify.tell(sys.argv[2:], "it failed\\n", env, timeout=float(sys.argv[1])))
"""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what the program leaves behind is that process's to kill."""
    return subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": str(PACKAGE), "SECRET": "not for others", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def tell(*command: str, timeout: float = 30) -> str:
    done = python("-c", TELL, str(timeout), *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shell(script: str, timeout: float = 30) -> str:
    return tell("/bin/sh", "-c", script, timeout=timeout)


def test_it_gets_the_text_and_little_else(tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert shell(f"cat > {told}; env >> {told}; pwd >> {told}") == "None"
    text, *environment = told.read_text().splitlines()
    assert text == "it failed"
    names = {line.partition("=")[0] for line in environment[:-1]} - {"PWD", "SHLVL", "_", "OLDPWD"}
    assert names == {"PATH", "LANG", "HOME", "REDIS_BACKUP_JOB"}
    assert environment[-1] == "/"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 3", "/bin/sh ended with 3 and said nothing"),
        ("echo no such chat >&2; exit 1", "/bin/sh ended with 1: no such chat"),
        ("kill -9 $$", "/bin/sh was ended by SIGKILL and said nothing"),
    ],
)
def test_one_that_fails(script: str, problem: str) -> None:
    assert shell(script) == problem


def test_one_that_is_not_there() -> None:
    assert tell("/no/such/program") == "/no/such/program cannot be run: No such file or directory"


def test_one_that_reads_nothing_and_says_very_much() -> None:
    said = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo the end; exit 1")
    assert said.endswith("xthe end")
    assert len(said) < 5000


@pytest.mark.parametrize(
    "script",
    ["sleep 60", "sleep 60 & wait", "setsid sleep 60", "trap '' TERM INT HUP; sleep 60; sleep 60"],
)
def test_one_that_hangs_is_killed_with_all_that_it_began(script: str) -> None:
    began = time.monotonic()
    marked = script.replace("sleep 60", f"sleep 60.{os.getpid()}")
    assert shell(marked, timeout=1) == "/bin/sh did not end within 1 s, and was killed"
    assert time.monotonic() - began < 20
    assert not alive(f"sleep\x0060.{os.getpid()}")


def test_one_that_ends_leaves_nothing_running() -> None:
    """A daemon that holds its output open."""
    assert shell(f"setsid sleep 61.{os.getpid()} & exit 0") == "None"
    assert not alive(f"sleep\x0061.{os.getpid()}")


def alive(command: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if command in path.read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False


# --- the command `scheduled` -----------------------------------------------------------------


def scheduled(directory: Path, job: str, then: str = "exit 0") -> tuple[Any, str]:
    """Run a job that is a shell script, as cron would; what it came to, and what was told."""
    told, config = directory / "told", directory / "drill.json"
    script = f"cat > {told}; echo $REDIS_BACKUP_STATUS >> {told}; {then}"
    config.write_text(json.dumps({**CONFIG, "notify_command": ["/bin/sh", "-c", script]}))
    config.chmod(0o600)
    words = ("--config", str(config), "scheduled", "drill", "/bin/sh", "-c", job)
    done = python("-m", "redis_backup", *words)
    return done, told.read_text() if told.exists() else ""


@pytest.mark.parametrize("code", [0, 75])
def test_a_job_that_does_not_fail_tells_nobody(tmp_path: Path, code: int) -> None:
    done, told = scheduled(tmp_path, f"echo done; exit {code}")
    assert (done.returncode, done.stdout, told) == (code, "done\n", "")


@pytest.mark.parametrize(
    ("job", "code"),
    [("echo why >&2; exit 1", 1), ("echo why; exit 2", 2), ("echo why; kill -9 $$", 137)],
)
def test_a_job_that_fails_however_tells_somebody(tmp_path: Path, job: str, code: int) -> None:
    done, told = scheduled(tmp_path, job)
    assert done.returncode == code
    assert done.stdout.startswith("why\n")
    assert told.startswith(f"redis-backup drill failed on drill-1: exit status {code}\n\nwhy\n")
    assert told.endswith(f"\n{code}\n")
    assert CONFIG["transport"]["secret"] not in told


def test_a_program_that_is_not_there_is_a_failed_job(tmp_path: Path) -> None:
    config = tmp_path / "drill.json"
    config.write_text(json.dumps(CONFIG))
    config.chmod(0o600)
    words = ("--config", str(config), "scheduled", "drill", "/no/such/program")
    assert python("-m", "redis_backup", *words).returncode == 127


def test_a_program_that_fails_does_not_change_how_the_job_ended(tmp_path: Path) -> None:
    done, _ = scheduled(tmp_path, "exit 4", then="echo no such chat; exit 9")
    assert done.returncode == 4
    assert "nobody was told of this failure" in done.stderr
    assert "ended with 9: no such chat" in done.stderr


def test_what_a_job_says_is_there_while_it_runs(tmp_path: Path) -> None:
    config = tmp_path / "drill.json"
    config.write_text(json.dumps(CONFIG))
    config.chmod(0o600)
    job = "echo now; sleep 30"
    words = ("--config", str(config), "scheduled", "drill", "/bin/sh", "-c", job)
    with subprocess.Popen(
        [sys.executable, "-m", "redis_backup", *words],
        env={"PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.terminate()
        assert process.wait(20) != 0


# --- the configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ("/bin/tell --to 'the night shift'", ("/bin/tell", "--to", "the night shift")),
        (["/bin/tell", "a b"], ("/bin/tell", "a b")),
    ],
)
def test_a_command_is_a_line_or_a_list_of_words(value: Any, words: tuple[str, ...]) -> None:
    config = reader.parse({**CONFIG, "notify_command": value}, Path("drill.json"))
    assert config.notify == words


def test_a_configuration_of_before_has_none() -> None:
    assert reader.parse(CONFIG, Path("drill.json")).notify == ()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("tell me", "must begin with the absolute path of a program"),
        ("/bin/tell 'me", "cannot be split into words"),
        (7, "must be a command line such as"),
        (True, "must be a command line such as"),
        ([["/bin/tell"]], "must be a command line such as"),
        (["/bin/tell", 7], "must be a command line such as"),
        ({"command": "/bin/tell"}, "must be a command line such as"),
    ],
)
def test_anything_else_is_refused_before_a_run(value: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match="notify_command.*" + complaint):
        reader.parse({**CONFIG, "notify_command": value}, Path("drill.json"))
