"""python3 -m lab: make, show and remove test hosts."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import engine as engines
from lab import files, hosts, image, inventory, machine, names, state, venv
from lab.engine import Engine
from lab.image import HostImage
from lab.inventory import Described
from lab.shell import LabError, say
from lab.state import Lab

CHECKOUT = Path(__file__).resolve().parent.parent
_ROOM_WAIT = 7200.0  # seconds: the longest test, several times


def _machine_lock() -> contextlib.AbstractContextManager[None]:
    """One at a time on this machine: two labs must not choose the same network or build the same
    image."""
    return files.locked(Path(tempfile.gettempdir()) / f"{names.PREFIX}-{os.getuid()}.lock")


def _lab_lock(name: str) -> contextlib.AbstractContextManager[None]:
    """One at a time on this lab."""
    return files.locked(CHECKOUT / ".labs" / f".{name}.lock")


def _ready_engine(
    suites: Iterable[str] = image.SUITES[:1], *, anew: bool = False, report: bool = False
) -> tuple[Engine, dict[str, HostImage]]:
    """An engine with options that boot confined hosts, and the host image of each release."""
    cache = CHECKOUT / ".labs" / "engine.json"
    found = engines.ensure_installed()
    apt = {suite: machine.apt_settings(suite) for suite in sorted(suites)}
    complaints = []
    for engine in found:
        try:
            images = {}
            for suite, settings in apt.items():
                reference, built = image.ensure(engine, suite, settings)
                if report or built:
                    say(f"  {'image':<10} {reference} ({'built' if built else 'cached'})")
                images[suite] = HostImage(reference, settings)
            # What boots one release boots the others; each host is seen to be confined as it boots.
            probed = next(iter(images.values())).reference
            known = None if anew else engines.cached(engine, probed, cache)
            return known or engines.probe(engine, probed, cache), images
        except LabError as error:
            complaints.append(str(error))
    raise LabError("\n".join(complaints))


def _prepare(name: str, tracked: Path, described: Described, engine: Engine | None) -> Lab:
    """Settle a lab's places and write its keys and inventory; nothing is started."""
    groups = described.groups
    before = state.load(CHECKOUT, name)
    taken = machine.routed_networks()
    for other in state.known_labs(CHECKOUT):
        neighbour = state.load(CHECKOUT, other)
        if neighbour and other != name:
            taken.append(neighbour.subnet)
    if engine:
        taken += hosts.engine_subnets(engine)
    lab = state.plan(
        CHECKOUT, name, list(groups), before, taken, machine.port_is_free, described.suites
    )
    if engine:
        lab = _held_by(engine, lab)
    else:
        state.save(lab)
    hosts.make_keys(lab)
    inventory.write(lab, tracked, groups)
    return lab


def _held_by(engine: Engine, lab: Lab) -> Lab:
    """The lab with this engine on record, before it makes anything that must be removed one day."""
    lab = dataclasses.replace(lab, engines=tuple(sorted({*lab.engines, engine.program})))
    state.save(lab)
    return lab


def setup() -> None:
    """Make .venv, and meanwhile see to the engine, the host image and how it boots."""

    def boot() -> None:
        with _machine_lock():
            engine, _ = _ready_engine(report=True)
        say(f"  {'engine':<10} {engine.describe()}")

    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(venv.ensure, CHECKOUT), pool.submit(boot)]
    for job in jobs:
        job.result()


def prepare(name: str, tracked: Path) -> None:
    machine.ensure_tools(machine.TOOL_PACKAGES)
    with _machine_lock(), _lab_lock(name):
        _prepare(name, tracked, inventory.read(CHECKOUT, tracked), None)


def create(name: str, tracked: Path, *, replace_lost: bool) -> None:
    """Bring the lab up, from whatever an earlier run left.

    A lab that lost a host is made anew as a whole: its other hosts hold a state that the new one
    knows nothing of, which a deployment rightly refuses to guess about. With replace_lost only the
    lost hosts are made.
    """
    machine.ensure_tools(machine.TOOL_PACKAGES)
    with _lab_lock(name):
        described = inventory.read(CHECKOUT, tracked)
        with _machine_lock():
            suites = {described.suites.get(host, image.SUITES[0]) for host in described.groups}
            engine, images = _ready_engine(suites)
            lab = _prepare(name, tracked, described, engine)
        existing = hosts.containers(engine, CHECKOUT, name)
        surplus = set(existing) - {lab.container(host) for host in lab.places}
        for container in sorted(surplus):
            engine.remove(container)
        lost = hosts.faults(engine, lab) if existing else dict.fromkeys(lab.places, "gone")
        if not lost and hosts.has_network(engine, lab):
            say(f"  {name:<10} all {len(lab.places)} hosts are up: {lab.inventory}")
            return
        for host, why in lost.items():
            if existing:
                say(f"  {host:<10} {why.splitlines()[0]}")
        hosts.close_connections(lab)
        if replace_lost and hosts.has_network(engine, lab):
            wanted = list(lost)
        else:
            if existing:
                say(f"  {name:<10} making all hosts anew")
            wanted = list(lab.places)
            lab = _make_network(engine, lab, tracked, described)
        # One lab after the other: what hosts take is seen only once they have booted.
        with files.locked(Path(tempfile.gettempdir()) / f"{names.PREFIX}-{os.getuid()}-boot.lock"):
            _await_room(engine, name, len(wanted))
            _start(engine, lab, wanted, images)
    say(f"  {name:<10} {len(lab.places)} hosts are up: {lab.inventory}")


def _await_room(engine: Engine, name: str, count: int) -> None:
    """Return when the kernel has room for so many more hosts.

    A test's lab waits for those of other tests, of whatever checkout, which end by themselves.
    Raises LabError when nothing is left to wait for, or they did not end.
    """
    told = False
    give_up = time.monotonic() + _ROOM_WAIT
    while True:
        try:
            machine.check_inotify(count)
        except LabError:
            if not names.is_of_a_test(name) or time.monotonic() >= give_up:
                raise
            own = str(CHECKOUT)
            ending = [
                other if checkout == own else f"{other} of {checkout}"
                for checkout, other in sorted(hosts.running_labs(engine) - {(own, name)})
                if names.is_of_a_test(other)
            ]
            if not ending:
                raise
            if not told:
                say(f"  {name:<10} waits for {', '.join(ending)} to end: no room for both")
                told = True
            time.sleep(5)
        else:
            return


def _make_network(engine: Engine, lab: Lab, tracked: Path, described: Described) -> Lab:
    """Remove all of a lab's containers and make its network, elsewhere when its place is taken."""
    with _machine_lock():
        hosts.remove(engine, lab.checkout, lab.name, map(lab.container, lab.places))
        taken = hosts.engine_subnets(engine) + machine.routed_networks()
        ports_taken = not all(machine.port_is_free(place.port) for place in lab.places.values())
        if ports_taken or any(lab.subnet.overlaps(other) for other in taken):
            say(f"  {lab.name:<10} its network or ports are in use by others: choosing new ones")
            (lab.directory / "state.json").unlink()
            lab = _prepare(lab.name, tracked, described, engine)
        hosts.make_network(engine, lab)
    return lab


def _start(engine: Engine, lab: Lab, wanted: list[str], images: dict[str, HostImage]) -> None:
    """Make the hosts; when that fails, once more with the engine's options probed anew."""
    try:
        hosts.start(engine, lab, wanted, images)
    except LabError as error:
        say(f"  {lab.name:<10} {str(error).splitlines()[0]}: probing the engine anew")
        with _machine_lock():
            engine, images = _ready_engine(images, anew=True)
        lab = _held_by(engine, lab)
        if not hosts.has_network(engine, lab):
            hosts.make_network(engine, lab)
        hosts.start(engine, lab, wanted, images)


def destroy(name: str) -> None:
    """Remove a lab's containers, network, keys and inventory; nothing of it is no error."""
    with _lab_lock(name):
        lab = state.load(CHECKOUT, name)
        found = engines.available()
        silent = set(lab.engines if lab else ()) - {engine.program for engine in found}
        if silent:
            programs = " and ".join(sorted(silent))
            raise LabError(
                f"{programs} does not answer and may still hold hosts of the lab {name}, so what is"
                f" known of it was kept: start {programs} (LAB_ENGINE must not name another engine)"
                f" and run this again, or remove .labs/{name} if {programs} is gone for good"
            )
        if lab:
            hosts.close_connections(lab)
        for engine in found:
            known = map(lab.container, lab.places) if lab else ()
            hosts.remove(engine, CHECKOUT, name, known)
        directory = CHECKOUT / ".labs" / name
        if name == names.USER_LAB:
            inventory.remove_users(CHECKOUT)
        if directory.is_dir():
            shutil.rmtree(directory)
    say(f"  {name:<10} removed")


def molecule(name: str, tracked: Path, molecule_state: Path) -> None:
    """What a scenario needs before Molecule looks at it: the lab's inventory, and its hosts where
    Molecule takes them for granted.

    Molecule skips `create` when its record says that it has been done. That record is kept by the
    project's directory name alone, outside the project, and survives the hosts.
    """
    prepare(name, tracked)
    with contextlib.suppress(OSError):
        if "created: true" in molecule_state.read_text().splitlines():
            create(name, tracked, replace_lost=False)


def show() -> None:
    """List this checkout's labs."""
    for name in state.known_labs(CHECKOUT):
        lab = state.load(CHECKOUT, name)
        if lab:
            say(f"{name}: inventory {lab.inventory.relative_to(CHECKOUT)}, network {lab.subnet}")
            for host, place in lab.places.items():
                say(f"  {host:<10} {place.address:<15} ssh 127.0.0.1:{place.port}")


def clean() -> None:
    """Remove every lab of this checkout, the host images and what the probe found."""
    for name in state.known_labs(CHECKOUT):
        destroy(name)
    for engine in engines.available():
        pattern = f"reference=localhost/{names.PREFIX}-host"
        listed = engine("image", "ls", "--quiet", "--filter", pattern, check=False)
        for found in sorted(set(listed.stdout.split())):
            if engine("image", "rm", found, check=False).returncode != 0:
                say(f"  image      {found} stays: a lab of another checkout uses it")
    shutil.rmtree(CHECKOUT / ".labs", ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python3 -m lab", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, explanation: str, *, lab: bool = False) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=explanation, description=explanation)
        if lab:
            own.add_argument("name", metavar="LAB", help=f"the user's is `{names.USER_LAB}`")
        return own

    def tracked(own: argparse.ArgumentParser) -> argparse.ArgumentParser:
        own.add_argument(
            "--hosts-from",
            type=Path,
            metavar="DIR",
            help="the tracked inventory that names the hosts (default: that of the test "
            f"that the lab is for, or else {inventory.TRACKED})",
        )
        return own

    command("venv", "make .venv from requirements.txt")
    tools = command("tools", "see to the programs that are needed on this machine")
    tools.add_argument("--tests", action="store_true", help="those of the tests too")
    tools.add_argument("--bench", action="store_true", help="those of the benchmarks too")
    command("setup", "make .venv and the host image, find out how the container engine boots it")
    tracked(command("prepare", "write a lab's inventory and keys; starts nothing", lab=True))
    create = tracked(command("create", "bring a lab up, from any earlier state", lab=True))
    create.add_argument(
        "--replace-lost", action="store_true", help="make only lost hosts anew, not the whole lab"
    )
    command("destroy", "remove a lab: containers, network, inventory, keys", lab=True)
    hook = tracked(command("molecule", "prepare a lab for a Molecule scenario", lab=True))
    hook.add_argument("molecule_state", type=Path, metavar="STATE", help="Molecule's state.yml")
    command("list", "show this checkout's labs")
    command("clean", "remove all labs of this checkout and the host images")
    return root


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if "name" in arguments:
            names.check_name(arguments.name)
        if "hosts_from" in arguments and arguments.hosts_from is None:
            arguments.hosts_from = inventory.tracked_for(CHECKOUT, arguments.name)
        match arguments.command:
            case "venv":
                venv.ensure(CHECKOUT)
            case "tools":
                tests = machine.TEST_PACKAGES if arguments.tests else {}
                bench = machine.BENCH_PACKAGES if arguments.bench else {}
                machine.ensure_tools({**machine.TOOL_PACKAGES, **tests, **bench})
            case "setup":
                setup()
            case "prepare":
                prepare(arguments.name, arguments.hosts_from)
            case "create":
                create(arguments.name, arguments.hosts_from, replace_lost=arguments.replace_lost)
            case "destroy":
                destroy(arguments.name)
            case "molecule":
                molecule(arguments.name, arguments.hosts_from, arguments.molecule_state)
            case "list":
                show()
            case "clean":
                clean()
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return 0
