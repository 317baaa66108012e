"""The container engine, and the options with which it boots hosts whose units are really confined.

systemd starts a unit even where the kernel refuses its sandbox, and says nothing. So nothing is
assumed about an engine, its OCI runtime or this machine's limits: option sets are tried, least
privilege first, until one boots a host to `running` in which a unit is seen to be confined.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess

from lab import names
from lab.machine import ENGINE_PACKAGES, can_install, install
from lab.shell import LabError, run, step

# Run inside a host. The unit has what the sandboxes of Debian's redis-server.service and of this
# project's own units ask for. One line per finding, read by confinement_faults().
CONFINEMENT_CHECK = r"""
for _ in $(seq 300); do
  state=$(timeout 240 systemctl is-system-running --wait 2>&1)
  case $state in *bus*) sleep 0.2 ;; *) break ;; esac
done
echo "state $state"
systemctl --failed --plain --no-legend --no-pager | sed 's/^/failed /'
for ns in net mnt user; do echo "host-$ns $(readlink /proc/1/ns/$ns)"; done
systemd-run --quiet --wait --pipe --collect \
  -p PrivateNetwork=yes -p PrivateTmp=yes -p PrivateDevices=yes -p PrivateUsers=yes \
  -p ProtectSystem=strict -p ProtectHome=yes -p ProtectKernelTunables=yes \
  -p ProtectControlGroups=yes -p NoNewPrivileges=yes \
  sh -c '
    for ns in net mnt user; do echo "unit-$ns $(readlink /proc/self/ns/$ns)"; done
    if touch /etc/.lab-probe 2>/dev/null; then echo "etc writable"; else echo "etc read-only"; fi
  ' 2>&1
rm -f /etc/.lab-probe
"""
_NAMESPACES = ("net", "mnt", "user")
_MODEST_LIMIT = 20000
# What systemd needs to confine its units. Without NET_ADMIN, that of Debian 13 gives them no
# network namespace; a host with it rules over its own network only.
_CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN")


@dataclass(frozen=True)
class Engine:
    """An engine with the options that were found to work.

    global_options stand before the subcommand, run_options behind `create`.
    """

    program: str
    version: str
    global_options: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()

    def __call__(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 300,
        stdin: bytes | None = None,
    ) -> CompletedProcess[str]:
        return run(
            [self.program, *self.global_options, *arguments],
            check=check,
            timeout=timeout,
            stdin=stdin,
        )

    def remove(self, container: str) -> None:
        """Remove a container in whatever state it is; none of that name is as good."""
        for attempt in range(3):
            try:
                if attempt == 2:
                    self("kill", "--signal", "KILL", container, check=False)
                done = self("rm", "--force", "--volumes", container, check=False)
                said = done.stderr.strip()
                if done.returncode == 0 or not self.exists(container):
                    return
            except LabError as error:  # it takes long: tried again like any other failure
                said = str(error)
        raise LabError(f"{self.program} cannot remove {container}: {said}")

    def exists(self, container: str) -> bool:
        return self("container", "inspect", container, check=False).returncode == 0

    def describe(self) -> str:
        return " ".join([self.program, self.version, *self.global_options, *self.run_options])


def confinement_faults(findings: str) -> list[str]:
    """What is wrong with a host, from the output of CONFINEMENT_CHECK; empty when all is well."""
    seen: dict[str, str] = {}
    failed: list[str] = []
    for line in findings.splitlines():
        key, _, value = line.partition(" ")
        if key == "failed":
            failed.append(value.split(" ")[0])
        else:
            seen[key] = value.strip()
    faults = []
    if seen.get("state") != "running":
        units = f" (failed: {', '.join(failed)})" if failed else ""
        faults.append(f"systemd is {seen.get('state') or 'not up'}{units}")
    for namespace in _NAMESPACES:
        outside, inside = seen.get(f"host-{namespace}"), seen.get(f"unit-{namespace}")
        if not inside:
            faults.append(f"a confined unit did not start ({namespace} namespace)")
        elif inside == outside:
            faults.append(f"a unit that asks for its own {namespace} namespace shares the host's")
    if seen.get("etc") != "read-only":
        faults.append("a unit with ProtectSystem=strict can write to /etc")
    return faults


def limit_candidates(nofile: int, nproc: int) -> list[tuple[str, ...]]:
    """Ways to set a host's limits on a machine whose own hard limits are these.

    An engine that may not raise limits cannot set its defaults; then the machine's own are tried,
    and then modest ones, because an engine may have lowered its own before it starts a host. Redis
    needs 10032 files. A limit of -1 is none.
    """

    def options(*limits: tuple[str, int]) -> tuple[str, ...]:
        return tuple(f"--ulimit={name}={value}:{value}" for name, value in limits if value >= 0)

    def capped(value: int) -> int:
        return _MODEST_LIMIT if value < 0 else min(value, _MODEST_LIMIT)

    own = options(("nofile", nofile), ("nproc", nproc))
    modest = options(("nofile", capped(nofile)), ("nproc", capped(nproc)))
    return list(dict.fromkeys([(), own, modest]))


def podman_candidates(
    runtimes: Sequence[str], limits: Sequence[tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Option sets for podman, least privilege first.

    runtimes: OCI runtimes to try beside its default; limits: see limit_candidates().
    """
    needs = ("--systemd=always",)
    caps = tuple(f"--cap-add={name}" for name in _CAPABILITIES)
    unhindered = (
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=label=disable",
    )
    privileges = (caps, caps + unhindered, ("--privileged",))
    chosen = ((), *((f"--runtime={name}",) for name in runtimes))
    for privilege, runtime, limit in product(privileges, chosen, limits):
        yield runtime, needs + privilege + limit


def docker_candidates() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Option sets for docker, least privilege first."""
    needs = (
        "--env=container=docker",
        "--stop-signal=SIGRTMIN+3",
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        "--tmpfs=/tmp:exec",
    )
    caps = (
        *(f"--cap-add={name}" for name in _CAPABILITIES),
        "--security-opt=seccomp=unconfined",
    )
    apparmor = ("--security-opt=apparmor=unconfined",)
    private = ("--cgroupns=private",)
    shared = ("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw")
    yield (), needs + caps + private
    yield (), needs + caps + apparmor + private
    yield (), (*needs, *caps, *apparmor, *shared)
    yield (), (*needs, "--privileged", *private)
    yield (), (*needs, "--privileged", *shared)


def _version(program: str) -> str | None:
    """The engine's version when it answers; None when it is not there or does not work."""
    if shutil.which(program) is None:
        return None
    template = "{{.Server.Version}}" if program == "docker" else "{{.Client.Version}}"
    try:
        done = run([program, "version", "--format", template], check=False, timeout=30)
    except LabError:
        return None
    version = done.stdout.strip()
    return version if done.returncode == 0 and version else None


def available() -> list[Engine]:
    """The engines that answer, the preferred one first; LAB_ENGINE narrows them to one."""
    wanted = os.environ.get("LAB_ENGINE", "")
    programs = [wanted] if wanted else ["podman", "docker"]
    found = []
    for program in programs:
        if program not in ("podman", "docker"):
            raise LabError(f"LAB_ENGINE is {program!r}: it can be podman or docker")
        version = _version(program)
        if version:
            found.append(Engine(program, version))
    return found


def ensure_installed() -> list[Engine]:
    """The engines of this machine; installs podman on Debian as root where there is none."""
    engines = available()
    if not engines and can_install() and os.environ.get("LAB_ENGINE", "podman") == "podman":
        install(ENGINE_PACKAGES)
        engines = available()
    if not engines:
        raise LabError(
            "no container engine answers: install podman (on Debian: apt-get install "
            f"{' '.join(ENGINE_PACKAGES)}), or start docker, and run this again"
        )
    return engines


def candidates(engine: Engine) -> Iterator[Engine]:
    """The same engine with each set of options that is worth trying."""
    if engine.program == "docker":
        options = docker_candidates()
    else:
        runtimes = [name for name in ("crun", "runc") if shutil.which(name)]
        options = podman_candidates(
            runtimes,
            limit_candidates(
                resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                resource.getrlimit(resource.RLIMIT_NPROC)[1],
            ),
        )
    for global_options, run_options in options:
        yield replace(engine, global_options=global_options, run_options=run_options)


def starter(engine: Engine, image: str) -> Engine:
    """The first option set with which the engine starts any container at all."""
    words = ""
    for candidate in candidates(engine):
        done = candidate(
            "run", "--rm", "--network=none", *candidate.run_options, image, "true", check=False
        )
        if done.returncode == 0:
            return candidate
        words = done.stderr.strip()
    raise LabError(f"{engine.program} {engine.version} starts no container: {words}")


def _try(candidate: Engine, image: str) -> list[str]:
    """Boot a throw-away host with these options and return what is wrong with it."""
    container = f"{names.PREFIX}-probe-{os.getpid()}"
    try:
        options = (f"--name={container}", "--network=none", *candidate.run_options)
        started = candidate("run", "--detach", *options, image, check=False)
        if started.returncode != 0:
            return [(started.stderr.strip().splitlines() or ["does not start"])[-1]]
        return check_confinement(candidate, container)
    except LabError as error:
        return [str(error)]
    finally:
        candidate("rm", "--force", "--volumes", container, check=False)


def check_confinement(engine: Engine, container: str) -> list[str]:
    """What is wrong with a booted host (see CONFINEMENT_CHECK); empty when all is well."""
    done = engine(
        "exec", "-i", container, "sh", "-s", check=False, stdin=CONFINEMENT_CHECK.encode()
    )
    if done.returncode != 0 and not done.stdout:
        return [f"cannot run a command in it: {done.stderr.strip()}"]
    return confinement_faults(done.stdout)


def _cache_key(engine: Engine, image: str) -> str:
    return f"{engine.program} {engine.version}, kernel {platform.release()}, {image}"


def cached(engine: Engine, image: str, cache: Path) -> Engine | None:
    """What an earlier probe found for this very engine, kernel and image."""
    try:
        found = json.loads(cache.read_text())[_cache_key(engine, image)]
        return replace(
            engine,
            global_options=tuple(found["global_options"]),
            run_options=tuple(found["run_options"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def probe(engine: Engine, image: str, cache: Path) -> Engine:
    """Find the option set that boots confined hosts and remember it.

    Raises LabError with what each tried set ended in when none does.
    """
    tried: dict[str, str] = {}
    with step("engine", f"probing how {engine.program} {engine.version} boots confined hosts") as n:
        for candidate in candidates(engine):
            faults = _try(candidate, image)
            if not faults:
                options = " ".join((*candidate.global_options, *candidate.run_options))
                n.append(f"with {options}")
                break
            tried["; ".join(faults)] = " ".join((*candidate.global_options, *candidate.run_options))
        else:
            raise LabError(
                f"{engine.program} {engine.version} boots no host whose units are confined; "
                "give another engine (LAB_ENGINE=podman or docker). What was tried ended in:\n"
                + "\n".join(f"  {why}\n    with {options}" for why, options in tried.items())
            )
    known = {}
    if cache.is_file():
        try:
            known = json.loads(cache.read_text())
        except ValueError:
            known = {}
    known[_cache_key(engine, image)] = {
        "global_options": list(candidate.global_options),
        "run_options": list(candidate.run_options),
    }
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(known, indent=1) + "\n")
    return candidate
