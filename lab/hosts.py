"""Making and removing the containers of a lab."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab import files, image, names
from lab.engine import Engine, check_confinement
from lab.image import HostImage
from lab.shell import LabError, run, say
from lab.state import Lab

_SSH_WAIT = 300.0


def labels(lab: Lab) -> tuple[str, str]:
    return (
        f"--label={names.CHECKOUT_LABEL}={lab.checkout}",
        f"--label={names.LAB_LABEL}={lab.name}",
    )


# --- networks -------------------------------------------------------------------------------------


def subnets_of(networks: Iterable[dict[str, Any]]) -> list[ipaddress.IPv4Network]:
    """The IPv4 subnets in the output of `network inspect`, podman's and docker's form."""
    found = []
    for network in networks:
        own = network.get("subnets") or (network.get("IPAM") or {}).get("Config") or []
        for entry in own:
            subnet = entry.get("subnet") or entry.get("Subnet") or ""
            with contextlib.suppress(ValueError):
                found.append(ipaddress.IPv4Network(subnet))
    return found


def engine_subnets(engine: Engine) -> list[ipaddress.IPv4Network]:
    """The subnets that the engine's networks have now."""
    listed = engine("network", "ls", "--format", "{{.Name}}").stdout.split()
    if not listed:
        return []
    return subnets_of(json.loads(engine("network", "inspect", *listed, check=False).stdout or "[]"))


def has_network(engine: Engine, lab: Lab) -> bool:
    """Whether the lab's network is there with the lab's subnet."""
    found = engine("network", "inspect", lab.network, check=False)
    return found.returncode == 0 and lab.subnet in subnets_of(json.loads(found.stdout))


def make_network(engine: Engine, lab: Lab) -> None:
    """Make the lab's network anew. Raises LabError when its subnet is taken."""
    remove_network(engine, lab.network)
    # The hosts ask this machine's resolvers themselves, one moving part less.
    dns = ("--disable-dns",) if engine.program == "podman" else ()
    engine("network", "create", *dns, f"--subnet={lab.subnet}", *labels(lab), lab.network)


def remove_network(engine: Engine, network: str) -> None:
    if engine("network", "inspect", network, check=False).returncode != 0:
        return
    done = engine("network", "rm", network, check=False)
    if done.returncode != 0 and engine("network", "inspect", network, check=False).returncode == 0:
        raise LabError(
            f"the network {network} cannot be removed: {done.stderr.strip()}\n"
            f"see what uses it: {engine.program} ps --all --filter network={network}"
        )


# --- keys -----------------------------------------------------------------------------------------


def _make_key(path: Path, comment: str) -> None:
    public = Path(f"{path}.pub")
    if path.is_file() and public.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def host_key(lab: Lab, host: str) -> Path:
    return lab.directory / "host_keys" / host


def make_keys(lab: Lab) -> None:
    """The lab's own key pair, one host key per host, and known_hosts with exactly these."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    lab.directory.chmod(0o700)
    _make_key(lab.key, f"{lab.name} of {lab.checkout}")
    known = []
    for host, place in lab.places.items():
        _make_key(host_key(lab, host), host)
        kind, key = Path(f"{host_key(lab, host)}.pub").read_text().split()[:2]
        known.append(f"[127.0.0.1]:{place.port} {kind} {key}\n")
    files.write(lab.known_hosts, "".join(known))


# --- ssh ------------------------------------------------------------------------------------------


def _control_path() -> str:
    home = os.environ.get("ANSIBLE_HOME", "~/.ansible")
    directory = os.environ.get("ANSIBLE_SSH_CONTROL_PATH_DIR", f"{home}/cp")
    return f"{Path(directory).expanduser()}/%C"


def close_connections(lab: Lab) -> None:
    """End Ansible's shared ssh connections to the lab: to a host made anew they would hang."""

    def close(port: int) -> None:
        options = ["-F", "/dev/null", "-o", f"ControlPath={_control_path()}", "-p", str(port)]
        # No connection to end is the normal case; one that does not answer is replaced by ssh.
        with contextlib.suppress(LabError):
            run(["ssh", "-O", "exit", *options, "root@127.0.0.1"], check=False, timeout=5)

    if shutil.which("ssh"):
        _each(close, [place.port for place in lab.places.values()])


def _wait_for_ssh(lab: Lab, host: str) -> None:
    """Log in as Ansible will, with the recorded host key; raises LabError after _SSH_WAIT s."""
    place = lab.places[host]
    give_up = time.monotonic() + _SSH_WAIT
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", place.port), 2) as s,
        ):
            s.settimeout(2)
            if s.recv(4) == b"SSH-":
                break
        if time.monotonic() > give_up:
            raise LabError(f"sshd of {host} does not answer on 127.0.0.1:{place.port}")
        time.sleep(0.2)
    run(
        [
            *("ssh", "-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", f'UserKnownHostsFile="{lab.known_hosts}"', "-o", "ControlPath=none"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"),
            *("-i", str(lab.key), "-p", str(place.port), "root@127.0.0.1", "true"),
        ],
        timeout=120,
    )


# --- containers -----------------------------------------------------------------------------------


def _each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Apply a function to all items at once; the first error is raised when all have ended."""
    wanted = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        futures = [pool.submit(function, item) for item in wanted]
    return [future.result() for future in futures]


def spec(lab: Lab, host: str) -> str:
    """What a container must have been made with to be this host of this lab."""
    key = Path(f"{lab.key}.pub").read_text().split()[1]
    identity = Path(f"{host_key(lab, host)}.pub").read_text().split()[1]
    place = lab.places[host]
    return json.dumps([place.address, place.port, place.suite, key, identity])


def fault(engine: Engine, lab: Lab, host: str) -> str | None:
    """Why a host cannot be used as it is, or None when it is up, confined and answers by ssh.

    A stopped host is started first: after a reboot the lab comes back with its data.
    """
    container = lab.container(host)
    found = engine("container", "inspect", container, check=False)
    if found.returncode != 0:
        return "gone"
    described = json.loads(found.stdout)[0]
    if (described["Config"].get("Labels") or {}).get(names.SPEC_LABEL) != spec(lab, host):
        return "made for another network, port, key or Debian"
    if not described["State"].get("Running"):
        started = engine("start", container, check=False)
        if started.returncode != 0:
            return f"stopped and does not start: {started.stderr.strip()}"
    faults = check_confinement(engine, container)
    if faults:
        return "; ".join(faults)
    try:
        _wait_for_ssh(lab, host)
    except LabError as error:
        return str(error)
    return None


def _start(engine: Engine, lab: Lab, host: str, source: HostImage) -> None:
    """Make one host and see it up and confined."""
    begin = time.monotonic()
    place = lab.places[host]
    container = lab.container(host)
    engine.remove(container)
    engine(
        "create",
        f"--name={container}",
        f"--hostname={host}",
        f"--network={lab.network}",
        f"--ip={place.address}",
        f"--publish=127.0.0.1:{place.port}:22",
        *labels(lab),
        f"--label={names.SPEC_LABEL}={spec(lab, host)}",
        *engine.run_options,
        source.reference,
    )
    identity = host_key(lab, host)
    content = {
        **image.apt_files(source.apt),
        "root/.ssh/authorized_keys": (Path(f"{lab.key}.pub").read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key": (identity.read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (Path(f"{identity}.pub").read_bytes(), 0o644),
    }
    engine("cp", "-", f"{container}:/", stdin=files.tar(content))
    engine("start", container)
    faults = check_confinement(engine, container)
    if faults:
        raise LabError(f"{host}: {'; '.join(faults)}")
    _wait_for_ssh(lab, host)
    ssh = f"ssh 127.0.0.1:{place.port}"
    seconds = time.monotonic() - begin
    say(f"  {host:<10} {place.suite}, {place.address}, {ssh}, units confined: {seconds:.1f} s")


def faults(engine: Engine, lab: Lab) -> dict[str, str]:
    """The hosts that cannot be used as they are, and why."""
    wanted = list(lab.places)
    found = _each(lambda host: fault(engine, lab, host), wanted)
    return {host: why for host, why in zip(wanted, found, strict=True) if why}


def start(engine: Engine, lab: Lab, wanted: Iterable[str], images: Mapping[str, HostImage]) -> None:
    """Make these hosts anew, all at once, each from the image of its Debian."""
    _each(lambda host: _start(engine, lab, host, images[lab.places[host].suite]), wanted)


def containers(engine: Engine, checkout: Path, lab: str) -> list[str]:
    """Every container that belongs to a lab by its labels, whatever its state."""
    listed = engine(
        *("ps", "--all", "--format", "{{.Names}}"),
        *("--filter", f"label={names.CHECKOUT_LABEL}={checkout}"),
        *("--filter", f"label={names.LAB_LABEL}={lab}"),
    )
    return listed.stdout.split()


def running_labs(engine: Engine) -> set[tuple[str, str]]:
    """Checkout and name of every lab of this engine that has a running host."""
    listed = engine("ps", "--quiet", "--filter", f"label={names.LAB_LABEL}").stdout.split()
    if not listed:
        return set()
    # One that has gone meanwhile is left out, and the exit status says so.
    described = engine("container", "inspect", *listed, check=False).stdout
    found = [container["Config"]["Labels"] for container in json.loads(described or "[]")]
    return {(labels[names.CHECKOUT_LABEL], labels[names.LAB_LABEL]) for labels in found}


def remove(engine: Engine, checkout: Path, lab: str, wanted: Iterable[str] = ()) -> list[str]:
    """Remove a lab's containers (by label, and the wanted ones by name) and its network."""
    doomed = sorted({*containers(engine, checkout, lab), *wanted})
    _each(engine.remove, doomed)
    remove_network(engine, names.network_name(checkout, lab))
    return doomed
