"""The lab's decisions: names, places, options, what it reads and writes; nothing is started."""

from __future__ import annotations

import dataclasses
import io
import ipaddress
import itertools
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab import cli, engine, files, hosts, image, inventory, machine, names, state
from lab.shell import LabError

HERE = Path("/home/me/redis")
FIVE = ["redis-1", "redis-2", "redis-3", "backup-1", "drill-1"]


def planned(name: str = "lab", checkout: Path = HERE, **kwargs: object) -> state.Lab:
    arguments = {"before": None, "taken": [], "port_is_free": lambda _: True, **kwargs}
    return state.plan(checkout, name, FIVE, **arguments)  # type: ignore[arg-type]


# --- names and places -----------------------------------------------------------------------------


def test_two_checkouts_and_two_labs_share_nothing() -> None:
    labs = [planned(n, Path(c)) for n in ("lab", "other") for c in ("/a/redis", "/b/redis")]
    for one, two in itertools.combinations(labs, 2):
        assert one.network != two.network
        assert not one.subnet.overlaps(two.subnet)
        assert not set(one.ports) & set(two.ports)
        assert one.container("redis-1") != two.container("redis-1")


def test_a_lab_is_found_again_by_its_name_alone() -> None:
    one, two = planned(), planned()
    assert (one.subnet, one.places) == (two.subnet, two.places)


def test_taken_networks_and_ports_are_stepped_over() -> None:
    first = planned()
    taken_ports = set(first.ports)
    second = planned(taken=[first.subnet], port_is_free=lambda port: port not in taken_ports)
    assert not second.subnet.overlaps(first.subnet)
    assert not set(second.ports) & taken_ports


def test_one_port_in_use_moves_the_whole_block() -> None:
    first = planned()
    second = planned(port_is_free=lambda port: port != first.ports[-1])
    assert not set(second.ports) & set(first.ports)


def test_nothing_free_is_said() -> None:
    with pytest.raises(ValueError, match="no free network or no free block"):
        planned(port_is_free=lambda _: False)


def test_a_known_lab_keeps_its_places_and_password() -> None:
    first = planned()
    again = planned(before=first, taken=[first.subnet], port_is_free=lambda _: False)
    assert again == first


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.lists(st.sampled_from("abcdefgh"), unique=True),
)
def test_hosts_keep_their_number_while_others_come_and_go(old: list[str], new: list[str]) -> None:
    before = names.assign(old, {})
    after = names.assign(new, before)
    assert list(after) == new
    assert len(set(after.values())) == len(new)
    assert all(after[host] == before[host] for host in new if host in before)


def test_more_hosts_than_ports_are_refused() -> None:
    with pytest.raises(ValueError, match="room for 20 hosts, not 21"):
        names.assign([f"h{n}" for n in range(21)], {})


def test_subnets_are_private_and_visit_everything_once() -> None:
    seen = list(names.subnets(HERE, "lab"))
    assert len(seen) == len(set(seen)) == 1 << 15
    assert all(subnet.is_private for subnet in seen)


def test_ports_stay_below_those_that_linux_hands_out() -> None:
    blocks = list(names.port_blocks(HERE, "lab"))
    assert min(b.start for b in blocks) == 20000
    assert max(b.stop for b in blocks) <= 32768


@pytest.mark.parametrize("name", ["", "-x", "Lab", "a_b", "a/b", "../x", "a" * 41, "lab\n"])
def test_a_name_that_could_leave_its_directory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a lab"):
        names.check_name(name)


def test_state_survives_the_disk_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    lab = planned(checkout=tmp_path)
    state.save(lab)
    assert state.load(tmp_path, "lab") == lab
    assert (lab.directory / "state.json").stat().st_mode & 0o777 == 0o600
    assert state.known_labs(tmp_path) == ["lab"]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"subnet": "10.0.0.0/24"}'])
def test_a_broken_record_is_none(tmp_path: Path, broken: str) -> None:
    files.write(tmp_path / ".labs" / "x" / "state.json", broken)
    assert state.load(tmp_path, "x") is None


def test_the_password_needs_quoting_everywhere() -> None:
    password = state.new_password()
    assert set(" \"'#") <= set(password)
    assert password != state.new_password()


# --- inventory ------------------------------------------------------------------------------------

LISTING = {
    "_meta": {"hostvars": {"redis-3": {"lab_suite": "bullseye"}, "backup-1": {"other": 1}}},
    "all": {"children": ["ungrouped", "redis", "backup_server", "restore_drill"]},
    "redis": {"children": ["redis_master", "redis_replicas"]},
    "redis_master": {"hosts": ["redis-1"]},
    "redis_replicas": {"hosts": ["redis-2", "redis-3"]},
    "backup_server": {"hosts": ["backup-1"]},
    "restore_drill": {"hosts": ["backup-1"]},
}


def test_hosts_come_in_the_inventorys_order_with_all_their_groups() -> None:
    members = inventory.hosts_and_groups(LISTING)
    assert list(members) == ["redis-1", "redis-2", "redis-3", "backup-1"]
    assert members["redis-1"] == ["all", "redis", "redis_master"]
    assert members["backup-1"] == ["all", "backup_server", "restore_drill"]


def test_a_host_may_have_another_debian() -> None:
    suites = inventory.chosen_suites(LISTING)
    assert suites == {"redis-3": "bullseye"}
    lab = planned(suites=suites)
    assert [lab.places[host].suite for host in FIVE] == [
        image.SUITES[0] if host != "redis-3" else "bullseye" for host in FIVE
    ]
    state_of = {host: place.suite for host, place in planned(before=lab).places.items()}
    assert set(state_of.values()) == {image.SUITES[0]}, "what the inventory says now counts"


def test_a_debian_that_is_not_built_is_refused() -> None:
    with pytest.raises(LabError, match="redis-1: lab_suite is 'sid', it can be bookworm, bull"):
        inventory.chosen_suites({"_meta": {"hostvars": {"redis-1": {"lab_suite": "sid"}}}})


def test_generated_inventory_is_literal_yaml() -> None:
    lab = planned(checkout=Path('/home/me/my "redis" #1'))
    groups = {host: ["redis"] for host in FIVE[:3]}
    groups |= {"backup-1": ["backup_server", "restore_drill"], "drill-1": ["restore_drill"]}
    written = yaml.safe_load(inventory.generated(lab, groups))["all"]
    assert written["vars"]["redis_requirepass"] == lab.requirepass
    assert written["vars"]["ansible_ssh_private_key_file"] == str(lab.key)
    assert "StrictHostKeyChecking" not in written["vars"]["ansible_ssh_common_args"]
    own = written["hosts"]
    assert list(own) == FIVE
    assert own["redis-1"] == {
        "ansible_port": lab.places["redis-1"].port,
        "redis_address": lab.places["redis-1"].address,
    }
    assert set(own["backup-1"]) == {
        "ansible_port",
        "redis_backup_server_address",
        "redis_restore_drill_address",
    }
    assert "{{" not in inventory.generated(lab, groups)


@pytest.mark.parametrize(
    ("lab", "directory"),
    [("molecule-change", "molecule/change/inventory"), ("hosts-growth", "tests/hosts/growth")],
)
def test_a_test_may_bring_an_inventory_of_its_own(tmp_path: Path, lab: str, directory: str) -> None:
    (tmp_path / directory).mkdir(parents=True)
    assert inventory.tracked_for(tmp_path, lab) == Path(directory)
    for name in ("molecule-default", "hosts-kills", "growth", "lab"):
        assert inventory.tracked_for(tmp_path, name) == inventory.TRACKED


def test_a_tests_lab_links_what_is_tracked_and_nothing_else(tmp_path: Path) -> None:
    tracked = tmp_path / inventory.TRACKED
    (tracked / "group_vars").mkdir(parents=True)
    (tracked / "hosts.yml").write_text("---\n")
    (tracked / "generated.yml").write_text("the user's own\n")
    lab = planned("molecule-default", tmp_path)
    inventory.write(lab, inventory.TRACKED, {})
    assert sorted(p.name for p in lab.inventory.iterdir()) == [
        "generated.yml",
        "group_vars",
        "hosts.yml",
    ]
    assert (lab.inventory / "hosts.yml").resolve() == tracked / "hosts.yml"
    assert (tracked / "generated.yml").read_text() == "the user's own\n"
    assert (lab.inventory / "generated.yml").stat().st_mode & 0o777 == 0o600


def test_the_users_lab_is_the_default_inventory_and_leaves_what_is_tracked(tmp_path: Path) -> None:
    tracked = tmp_path / inventory.TRACKED
    tracked.mkdir(parents=True)
    (tracked / "hosts.yml").write_text("---\n")
    lab = planned(checkout=tmp_path)
    inventory.write(lab, inventory.TRACKED, {})
    (tracked / ".secrets").mkdir()
    assert lab.inventory == tracked
    assert not (tracked / "hosts.yml").is_symlink()
    assert (tracked / "generated.yml").is_file()
    inventory.remove_users(tmp_path)
    assert [path.name for path in tracked.iterdir()] == ["hosts.yml"]


# --- machine --------------------------------------------------------------------------------------


def test_mirrors_are_those_of_debian_alone() -> None:
    listing = (
        "Debian|Somebody else|http://copy.example/debian/\n"
        "Debian|Debian|http://mirror.example/debian/\n"
        "Debian-Security|Debian|http://mirror.example/debian-security/\n"
        "Debian Backports|Debian|http://other.example/debian/\n"
        "nodesource|Node Source|https://deb.nodesource.example/node\n"
    )
    assert machine.parse_indextargets(listing) == {
        "Debian": "http://mirror.example/debian",
        "Debian-Security": "http://mirror.example/debian-security",
    }


def test_mirrors_are_known_before_the_first_update() -> None:
    listing = (
        "||http://mirror.example/debian\n||http://mirror.example/x/debian-security\n||http://z\n"
    )
    assert machine.parse_indextargets(listing) == {
        "Debian": "http://mirror.example/debian",
        "Debian-Security": "http://mirror.example/x/debian-security",
    }


def test_sources_of_a_machine_that_is_no_debian() -> None:
    assert machine.sources_list("trixie", {}).splitlines() == [
        "deb http://deb.debian.org/debian trixie main",
        "deb http://deb.debian.org/debian trixie-updates main",
        "deb http://deb.debian.org/debian-security trixie-security main",
    ]


def test_acquire_options_are_those_that_say_how_to_reach_a_mirror() -> None:
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://cache.example:3142";\n'
        'Acquire::http::Proxy::direct.example "DIRECT";\n'
        'Acquire::https::Proxy "";\n'
        'Acquire::GzipIndexes "true";\n'
        'Dir::Cache::pkgcache "";\n'
    )
    assert machine.acquire_options(dump, {}).splitlines() == [
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://cache.example:3142";',
        'Acquire::http::Proxy::direct.example "DIRECT";',
    ]


def test_the_shells_proxy_counts_where_apt_has_none() -> None:
    environ = {"http_proxy": "http://a.example:1", "HTTPS_PROXY": "http://b.example:2"}
    dump = 'Acquire::http::Proxy "http://own.example:3";\n'
    assert machine.acquire_options(dump, environ).splitlines() == [
        'Acquire::http::Proxy "http://own.example:3";',
        'Acquire::https::Proxy "http://b.example:2";',
    ]


def test_routes() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "tun0\t0000800A\t00000000\t0001\t0\t0\t0\t0000E0FF\t0\t0\t0\n"
    )
    assert machine.parse_routes(table) == [
        ipaddress.IPv4Network("192.168.2.0/24"),
        ipaddress.IPv4Network("10.128.0.0/11"),
    ]


def test_a_port_that_something_listens_on_is_not_free() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not machine.port_is_free(server.getsockname()[1])


# --- engine ---------------------------------------------------------------------------------------

SOUND = """\
state running
host-net net:[1]
host-mnt mnt:[2]
host-user user:[3]
unit-net net:[4]
unit-mnt mnt:[5]
unit-user user:[6]
etc read-only
"""


def test_a_confined_host_has_no_fault() -> None:
    assert engine.confinement_faults(SOUND) == []


@pytest.mark.parametrize(
    ("line", "instead", "fault"),
    [
        (
            "state running",
            "state degraded\nfailed x.service loaded",
            "degraded (failed: x.service)",
        ),
        ("state running\n", "", "systemd is not up"),
        ("unit-net net:[4]", "unit-net net:[1]", "its own net namespace shares the host's"),
        ("unit-mnt mnt:[5]", "unit-mnt mnt:[2]", "its own mnt namespace shares the host's"),
        ("unit-user user:[6]", "unit-user user:[3]", "its own user namespace shares the host's"),
        ("unit-net net:[4]\n", "", "did not start"),
        ("etc read-only", "etc writable", "can write to /etc"),
        ("etc read-only\n", "", "can write to /etc"),
    ],
)
def test_each_hole_in_the_confinement_is_a_fault(line: str, instead: str, fault: str) -> None:
    faults = engine.confinement_faults(SOUND.replace(line, instead))
    assert len(faults) == 1
    assert fault in faults[0]


def test_silence_is_a_fault() -> None:
    assert engine.confinement_faults("") != []


def test_podman_is_tried_with_least_privilege_first() -> None:
    tried = list(engine.podman_candidates(["crun", "runc"], [(), ("--ulimit=nofile=9:9",)]))
    caps = ("--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=NET_ADMIN")
    assert tried[0] == ((), ("--systemd=always", *caps))
    privileged = ["--privileged" in options for _, options in tried]
    assert privileged == sorted(privileged)
    assert len(tried) == len(set(tried)) == 3 * 3 * 2


def test_docker_is_tried_with_least_privilege_first() -> None:
    tried = list(engine.docker_candidates())
    privileged = ["--privileged" in options for _, options in tried]
    assert privileged == sorted(privileged)
    assert not privileged[0]
    assert len(tried) == len(set(tried))


def test_limits_are_never_above_the_machines_own() -> None:
    assert engine.limit_candidates(20000, 96365) == [
        (),
        ("--ulimit=nofile=20000:20000", "--ulimit=nproc=96365:96365"),
        ("--ulimit=nofile=20000:20000", "--ulimit=nproc=20000:20000"),
    ]
    assert engine.limit_candidates(4096, 1000) == [
        (),
        ("--ulimit=nofile=4096:4096", "--ulimit=nproc=1000:1000"),
    ]


def test_a_machine_without_limits_gets_none_first() -> None:
    assert engine.limit_candidates(-1, -1)[0] == ()
    assert len(engine.limit_candidates(-1, -1)) == 2


def test_what_was_probed_counts_for_that_engine_and_image_only(tmp_path: Path) -> None:
    cache = tmp_path / "engine.json"
    found = engine.Engine("podman", "5.0.0")
    assert engine.cached(found, "image", cache) is None
    cache.write_text("broken")
    assert engine.cached(found, "image", cache) is None


def test_subnets_of_both_engines() -> None:
    podman = {"name": "a", "subnets": [{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]}
    docker = {"Name": "b", "IPAM": {"Config": [{"Subnet": "10.2.0.0/16"}]}}
    bare = {"Name": "none", "IPAM": {"Config": None}}
    assert hosts.subnets_of([podman, docker, bare]) == [
        ipaddress.IPv4Network("10.1.0.0/24"),
        ipaddress.IPv4Network("10.2.0.0/16"),
    ]


# --- image and files ------------------------------------------------------------------------------


def test_the_image_changes_with_suite_and_mirror_but_not_with_proxies() -> None:
    one = machine.AptSettings("deb http://a bookworm main\n", "", None)
    proxied = machine.AptSettings(one.sources, "Acquire::Retries 3;\n", b"certificates")
    elsewhere = machine.AptSettings("deb http://b bookworm main\n", "", None)
    assert image.reference("bookworm", one) == image.reference("bookworm", proxied)
    assert image.reference("bookworm", one) != image.reference("bookworm", elsewhere)
    assert image.reference("bookworm", one) != image.reference("trixie", one)


def test_tar_keeps_content_and_mode_and_belongs_to_root() -> None:
    packed = files.tar({"etc/a": (b"x", 0o600), "root/.ssh/b": (b"yy", 0o644)})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {m.name: m for m in archive.getmembers()}
        assert members["etc/a"].mode == 0o600
        assert {(m.uid, m.gid) for m in members.values()} == {(0, 0)}
        content = archive.extractfile("root/.ssh/b")
        assert content is not None
        assert content.read() == b"yy"


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    files.write(path, "one", 0o600)
    before = path.stat().st_ino
    files.write(path, "two", 0o640)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == ["file"]


# --- command line ---------------------------------------------------------------------------------


def test_options() -> None:
    arguments = cli.parser().parse_args(["create", "x", "--replace-lost", "--hosts-from", "a/b"])
    assert (arguments.command, arguments.name, arguments.replace_lost) == ("create", "x", True)
    assert arguments.hosts_from == Path("a/b")


def test_a_bad_name_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["destroy", "../../etc"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lab: '../../etc' is no name for a lab")
    assert said.count("\n") == 1


def test_the_lab_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        ["python3", "-I", "-S", "-c", "import sys; sys.path.insert(0, '.'); import lab.cli"],
        cwd=cli.CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- packages of this machine ---------------------------------------------------------------------


def private_apt(directory: Path) -> list[str]:
    """Options with which apt-get works on directories of its own, without any source."""
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "sources.list").touch()
    return [
        f"-oDir::State::Lists={directory}/lists",
        f"-oDir::Cache={directory}",
        f"-oDir::Etc::SourceList={directory}/sources.list",
        "-oDir::Etc::SourceParts=/nonexistent",
    ]


def test_apt_waits_for_whoever_else_uses_it(tmp_path: Path) -> None:
    """As on a machine that has just booted and updates its lists by itself."""
    options = private_apt(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time\n"
            "file = open(sys.argv[1], 'w')\n"
            "fcntl.lockf(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.readline()\n"
            "time.sleep(1)\n",
            str(tmp_path / "lists" / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = machine.apt_get("update", *options, patience=0)
        assert refused.returncode != 0
        assert "Could not get lock" in refused.stderr
        holder.stdin.write(b"enough\n")
        holder.stdin.flush()
        done = machine.apt_get("update", *options, patience=300)
        assert done.returncode == 0, done.stderr


def test_a_failed_installation_shows_what_the_update_before_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::State::Lists "{tmp_path}/lists";\nDir::Cache "{tmp_path}";\n'
        f'Dir::Etc::SourceList "{tmp_path}/sources.list";\nDir::Etc::SourceParts "/nonexistent";\n'
        'Acquire::Retries "0";\n'
    )
    private_apt(tmp_path)
    (tmp_path / "sources.list").write_text("deb http://127.0.0.1:9/debian bookworm main\n")
    monkeypatch.setenv("APT_CONFIG", str(config))
    with pytest.raises(LabError) as caught:
        machine.install(["no-such-package-of-anybody"])
    assert "no-such-package-of-anybody" in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


# --- what is kept between runs --------------------------------------------------------------------


def test_a_lab_whose_engine_does_not_answer_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    lab = dataclasses.replace(planned(checkout=tmp_path), engines=("docker",))
    state.save(lab)
    # Neither engine is to be found.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["destroy", "lab"]) == 1
    assert "docker does not answer and may still hold hosts" in capsys.readouterr().err
    assert state.load(tmp_path, "lab") == lab


def test_a_lab_without_hosts_needs_no_engine_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    state.save(planned(checkout=tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["destroy", "lab"]) == 0
    assert state.load(tmp_path, "lab") is None


def test_a_lock_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    with cli._lab_lock("lab"):
        before = (tmp_path / ".labs" / ".lab.lock").stat().st_ino
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["destroy", "lab"]) == 0
    assert (tmp_path / ".labs" / ".lab.lock").stat().st_ino == before


def test_a_lock_overwrites_nothing_and_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("content")
    with files.locked(precious):
        assert precious.read_text() == "content"
    link = tmp_path / "lock"
    link.symlink_to(precious)
    with pytest.raises(LabError, match="cannot be opened"), files.locked(link):
        pass
    link.unlink()
    link.symlink_to(tmp_path / "new")
    with pytest.raises(LabError), files.locked(link):
        pass
    assert not (tmp_path / "new").exists()


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = "import sys; from pathlib import Path; from lab import files\n"
    script += "with files.locked(Path(sys.argv[1])): print('held', flush=True)"
    with files.locked(path):
        other = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=1)
    assert other.communicate(timeout=60)[0] == b"held\n"


def _rooms(monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
    """What the kernel says, one look after the other."""
    left = list(answers)

    def check(count: int) -> None:
        if not left.pop(0):
            raise LabError(f"no room for {count}")

    monkeypatch.setattr(machine, "check_inotify", check)
    monkeypatch.setattr(time, "sleep", lambda _: None)


OURS, THEIRS = str(cli.CHECKOUT), "/somewhere/else"


@pytest.mark.parametrize(
    ("name", "running", "waits"),
    [
        ("molecule-a", {(OURS, "molecule-b")}, True),
        ("molecule-a", {(THEIRS, "molecule-a")}, True),
        ("hosts-a", {(OURS, "molecule-b")}, True),
        ("molecule-a", {(THEIRS, "hosts-b")}, True),
        ("molecule-a", {(OURS, "molecule-a")}, False),  # itself
        ("molecule-a", {(OURS, "lab"), (THEIRS, "lab")}, False),  # would not end by themselves
        ("molecule-a", set(), False),
        ("lab", {(OURS, "molecule-b")}, False),  # its user is told at once
    ],
)
def test_only_a_test_waits_and_only_for_tests(
    monkeypatch: pytest.MonkeyPatch, name: str, running: set[tuple[str, str]], waits: bool
) -> None:
    _rooms(monkeypatch, False, True)
    monkeypatch.setattr(hosts, "running_labs", lambda _engine: running)
    if waits:
        cli._await_room(None, name, 5)  # type: ignore[arg-type]
    else:
        with pytest.raises(LabError, match="no room for 5"):
            cli._await_room(None, name, 5)  # type: ignore[arg-type]


def test_a_test_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    _rooms(monkeypatch, False, False)
    monkeypatch.setattr(hosts, "running_labs", lambda _engine: {(THEIRS, "molecule-b")})
    monkeypatch.setattr(cli, "_ROOM_WAIT", 0.0)
    with pytest.raises(LabError, match="no room for 5"):
        cli._await_room(None, "molecule-a", 5)  # type: ignore[arg-type]


def test_the_labs_that_run_are_known_by_their_labels(tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "ps) printf 'one\\ntwo\\ngone\\n' ;;\n"
        '*) echo \'[{"Config": {"Labels": {"redis-lab.checkout": "/a",\'\n'
        '   echo \' "redis-lab.name": "molecule-x"}}}]\'; exit 1 ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    assert hosts.running_labs(engine.Engine(str(program), "1")) == {("/a", "molecule-x")}


def test_a_removal_that_takes_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said.append(argv[1])
        if len(said) < 3:
            raise LabError("no end after 300 s: podman rm")
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(engine, "run", run)
    engine.Engine("podman", "5").remove("redis-1")
    assert said == ["rm", "rm", "kill", "rm"]
