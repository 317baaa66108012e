"""Real Redis servers for tests: the one on PATH, and those of other Debian releases.

A server of another release comes from that release's packages: fetched by this machine's own apt
from the mirrors that it uses itself, with a private configuration, unpacked below `.cache/servers`
and started through its own dynamic loader, so that nothing is installed. The second time the cache
is enough.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.support.resp import Client

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "servers"

#: The Debian releases whose servers the fixtures come from, and the Redis that each has.
SUITES = {"bullseye": "6.0", "bookworm": "7.0", "trixie": "8.0"}
VALKEY_SUITE = "trixie"
#: What the next Debian will have. It moves on until then: the major version is what counts.
NEXT_SUITE = "forky"
#: On top of `sid`, and neither has updates of security.
EXPERIMENTAL = "experimental"

_KEYRINGS = tuple(
    Path("/usr/share/keyrings/debian-archive-keyring" + suffix) for suffix in (".gpg", ".pgp")
)
_START_SECONDS = 60


class NoServerError(RuntimeError):
    """No such server can be had here; the message says why."""


@dataclass(frozen=True)
class Binary:
    """A redis-server: the words that start it, and its version, e.g. 7.0.15."""

    command: tuple[str, ...]
    version: str

    @property
    def release(self) -> str:
        """Major and minor version."""
        return ".".join(self.version.split(".")[:2])


def _binary(command: tuple[str, ...]) -> Binary:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30)
    found = re.search(r"v=(\d+\.\d+\.\d+)", done.stdout)
    if done.returncode or found is None:
        raise NoServerError(f"{command[-1]} --version says {done.stdout + done.stderr!r}")
    return Binary(command, found[1])


def on_path() -> Binary | None:
    """The redis-server on PATH."""
    program = shutil.which("redis-server")
    return None if program is None else _binary((program,))


def any_server() -> Binary:
    """The redis-server on PATH, else bookworm's."""
    return on_path() or of_suite("bookworm")


def of_release(release: str) -> Binary:
    """A redis-server of that major and minor version, e.g. 7.0."""
    installed = on_path()
    if installed is not None and installed.release == release:
        return installed
    for suite, suite_release in SUITES.items():
        if suite_release == release:
            return of_suite(suite)
    raise NoServerError(f"Redis {release}: not on PATH, and in none of {', '.join(SUITES)}")


def of_suite(suite: str, engine: str = "redis") -> Binary:
    """The server of a Debian release, unpacked when it was not yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = suite if engine == "redis" else f"{suite}-{engine}"
    root = CACHE / name
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{name}.") as scratch:
                unpacked = Path(scratch, "root")
                _unpack(suite, engine, Path(scratch), unpacked)
                unpacked.rename(root)
    loader = next(iter(sorted(root.glob("**/ld-linux*.so.*"))), None)
    program = root / f"usr/bin/{engine}-server"
    if loader is None or not program.exists():
        raise NoServerError(f"{root}: no {engine}-server with its loader; remove it, try again")
    libraries = sorted({str(path.parent) for path in root.glob("**/lib*.so.*")})
    # a link to redis-check-rdb, which looks at the name that it is called by
    return _binary((str(loader), "--library-path", ":".join(libraries), str(program)))


def valkey() -> Binary:
    """The valkey-server of the first Debian that has one."""
    return of_suite(VALKEY_SUITE, "valkey")


def valkey_9() -> Binary:
    """The valkey-server of the next Debian, with Valkey's own format."""
    return of_suite(NEXT_SUITE, "valkey")


def _unpack(suite: str, engine: str, scratch: Path, root: Path) -> None:
    """Fetch and unpack the server of `suite` with every library below it."""
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NoServerError(
                f"no {tool} here: servers of other releases come from Debian's packages"
            )
    options = _apt_options(suite, scratch)
    try:
        _run(["apt-get", *options, "update"], scratch)
        closure = _run(
            [
                "apt-cache",
                *options,
                "depends",
                "--recurse",
                *(f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks")),
                *(f"--no-{kind}" for kind in ("replaces", "enhances", "pre-depends")),
                f"{engine}-tools",
            ],
            scratch,
        )
        libraries = [
            line
            for line in closure.splitlines()
            if re.fullmatch(r"(lib|lua-|zlib)[a-z0-9.+-]*", line) and not line.endswith("-common")
        ]
        packages = scratch / "packages"
        packages.mkdir()
        own = [f"{engine}-server", f"{engine}-tools"]
        _run(["apt-get", *options, "download", *own, *libraries], packages)
    except subprocess.CalledProcessError as error:
        reason = str(error.stderr or error.stdout).strip().splitlines()
        raise NoServerError(
            f"{engine}-server of {suite} cannot be had: {reason[-1] if reason else error}"
        ) from error
    root.mkdir()
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], scratch)


def _run(command: list[str], directory: Path) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=directory, timeout=600
    ).stdout


def _apt_options(suite: str, scratch: Path) -> list[str]:
    """Options of apt for another release: sources of its own, made from this machine's."""
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
        if "=" in line
    )
    codename = release.get("VERSION_CODENAME", "").strip('"')
    targets = _run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        scratch,
    )
    keyring = next((f" [signed-by={path}]" for path in _KEYRINGS if path.exists()), "")
    suites = ("sid", suite) if suite == EXPERIMENTAL else (suite,)
    kinds = ("",) if "sid" in suites else ("", "-security")
    sources: set[str] = set()
    for target in targets.splitlines():
        uri, name, component = target.split()
        if component == "main" and name in [codename + kind for kind in kinds]:
            kind = name[len(codename) :]
            sources.update(f"deb{keyring} {uri} {wanted}{kind} main\n" for wanted in suites)
    if not sources:
        raise NoServerError(f"apt knows no source of main for {codename or 'this system'}")
    lists = scratch / "sources.list"
    lists.write_text("".join(sorted(sources)), encoding="utf-8")
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (scratch / directory).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": lists,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        # the unprivileged user could not write below a private directory
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    if suite == EXPERIMENTAL:
        settings["APT::Default-Release"] = suite
    return ["-q", *(f"-o{name}={value}" for name, value in settings.items())]


@dataclass
class Server:
    """A running scratch server."""

    binary: Binary
    directory: Path
    socket: Path
    client: Client

    def __call__(self, *words: str | bytes | int | float) -> Any:
        """One command; bytes for strings, int, list or None."""
        return self.client.command(*words)

    @property
    def dump(self) -> Path:
        """The RDB that SAVE writes."""
        return self.directory / "dump.rdb"

    def keyspace(self) -> dict[str, dict[str, int]]:
        """INFO keyspace: keys and expires by database."""
        counts = {}
        for line in self("INFO", "keyspace").decode().splitlines():
            found = re.match(r"db(\d+):keys=(\d+),expires=(\d+)", line)
            if found:
                counts[found[1]] = {"keys": int(found[2]), "expires": int(found[3])}
        return counts


@contextmanager
def running(
    binary: Binary,
    rdb: Path | None = None,
    settings: Mapping[str, str | int] | None = None,
    *,
    frozen: bool = False,
) -> Iterator[Server]:
    """A scratch server on a unix socket, in a directory of its own that goes away with it.

    `rdb` is copied there and loaded. `frozen` makes it a replica of a master that does not exist:
    such a server expires nothing. It never saves by itself.
    """
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        place = Path(directory)
        if rdb is not None:
            shutil.copyfile(rdb, place / "dump.rdb")
        given: dict[str, str | int] = {
            "port": 0,
            "unixsocket": str(place / "socket"),
            "dir": directory,
            "save": "",
            "appendonly": "no",
            "logfile": str(place / "log"),
            "daemonize": "no",
            "databases": 16,
            **(settings or {}),
        }
        if frozen:
            given["replicaof"] = "127.0.0.1 1"
        words = [*binary.command]
        for name, value in given.items():
            words += [f"--{name}", *(str(value).split() if name == "replicaof" else [str(value)])]
        with (place / "log").open("wb") as log:
            # what it says before it has read its settings
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            client = _connect(process, place)
            try:
                yield Server(binary, place, place / "socket", client)
            finally:
                client.close()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server; one that writes its first append-only file refuses a SIGTERM, for good."""
    for _ in range(60):
        process.terminate()
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _connect(process: subprocess.Popen[bytes], place: Path) -> Client:
    """A client, once the server is there and has loaded what it had to."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            client = Client(place / "socket")
            client.command("PING")
        except (redis.ConnectionError, redis.TimeoutError):  # also while it loads
            pass
        else:
            return client
        time.sleep(0.01)
    log = place / "log"
    said = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    raise NoServerError("the scratch server does not answer; its log ends:\n" + "\n".join(said))
