"""The image of a host: Debian with systemd, sshd, cron and Python, as a cloud's image has them.

Tagged by its recipe, so that a changed recipe makes a new one and everything else is cached. How
this machine reaches its mirrors goes into the hosts when they are made, never into the image.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import names
from lab.engine import Engine, starter
from lab.files import tar
from lab.machine import AptSettings, can_install, install, sources_list
from lab.shell import LabError, run, step

# Of Debian's releases, those that a host may be; the first is that of a host that says nothing.
SUITES = ("bookworm", "bullseye", "trixie")
PACKAGES = (
    "ca-certificates",
    "cron",
    "dbus",
    "iproute2",
    "less",
    "libpam-systemd",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)
# Runs in the new system. Containers' base images forbid services to start and thin out packages;
# a server does neither. The timers would take apt's lock at a moment of their own choosing. A host
# that is made anew after a crash has no use for dpkg's many syncs.
SETUP = """
set -e
rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/docker* /etc/apt/apt.conf.d/docker-*
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/apt.conf.d/90lab /etc/apt/sources.list.d/*
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id
: > /etc/machine-id
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab
install -d -m 0700 /root/.ssh
systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer getty@tty1.service \
  console-getty.service >/dev/null 2>&1
systemctl enable ssh.service cron.service >/dev/null 2>&1
apt-get clean
"""
REGISTRY_TIMEOUT = 3.0


@dataclass(frozen=True)
class HostImage:
    """What the hosts of one Debian release are made from, and how they get their packages."""

    reference: str
    apt: AptSettings


def reference(suite: str, apt: AptSettings) -> str:
    """The image's name. The package lists inside belong to certain mirrors, so they count too."""
    recipe = "\0".join((suite, *PACKAGES, SETUP, apt.sources, _base_image(suite)))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return f"localhost/{names.PREFIX}-host:{suite}-{digest}"


def _base_image(suite: str) -> str:
    return os.environ.get("LAB_BASE_IMAGE") or f"docker.io/library/debian:{suite}-slim"


def present(engine: Engine, image: str) -> bool:
    return engine("image", "inspect", image, check=False).returncode == 0


def ensure(engine: Engine, suite: str, apt: AptSettings) -> tuple[str, bool]:
    """The reference of the host image, and whether it had to be built."""
    image = reference(suite, apt)
    if present(engine, image):
        return image, False
    base = _base_image(suite)
    if present(engine, base) or _pull(engine, base):
        _build_from(engine, base, image, suite, apt)
    else:
        _bootstrap(engine, image, suite, apt)
    return image, True


def _registry_answers(image: str) -> bool:
    """Whether asking the image's registry is worth the wait; behind a proxy it always is."""
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY")):
        return True
    host, _, _ = image.partition("/")
    host = {"docker.io": "registry-1.docker.io"}.get(host, host)
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port or 443)), REGISTRY_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True


def _pull(engine: Engine, base: str) -> bool:
    if not _registry_answers(base):
        return False
    with step("image", f"pulling {base}") as notes:
        try:
            pulled = engine("pull", "--quiet", base, check=False, timeout=300).returncode == 0
        except LabError:
            pulled = False
        if not pulled:
            notes.append("cannot be had, building it from Debian's packages instead")
    return pulled


def _build_from(engine: Engine, base: str, image: str, suite: str, apt: AptSettings) -> None:
    """Install the host's packages into a registry's Debian image."""
    builder = starter(engine, base)
    container = f"{names.PREFIX}-build-{os.getpid()}"
    commands = (
        "set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        f"apt-get install -q -y --no-install-recommends {' '.join(PACKAGES)}\n{SETUP}"
    )
    with step("image", f"installing {len(PACKAGES)} packages into {base}"):
        try:
            builder(
                "create",
                f"--name={container}",
                *_ulimits(builder),
                base,
                "sleep",
                "infinity",
            )
            builder("cp", "-", f"{container}:/", stdin=tar(apt_files(apt)))
            builder("start", container)
            builder("exec", container, "sh", "-c", commands, timeout=1200)
            neutral = tar({"etc/apt/sources.list": (sources_list(suite, {}).encode(), 0o644)})
            builder("cp", "-", f"{container}:/", stdin=neutral)
            builder("commit", "--change", 'CMD ["/sbin/init"]', container, image, timeout=300)
        finally:
            builder("rm", "--force", "--volumes", container, check=False)


def _ulimits(builder: Engine) -> tuple[str, ...]:
    return tuple(option for option in builder.run_options if option.startswith("--ulimit"))


def _bootstrap(engine: Engine, image: str, suite: str, apt: AptSettings) -> None:
    """Build the image from nothing but Debian's packages."""
    if shutil.which("mmdebstrap") is None:
        if not can_install():
            raise LabError(
                f"{_base_image(suite)} cannot be pulled and mmdebstrap is not installed: install "
                "mmdebstrap, or name a Debian image that you have in LAB_BASE_IMAGE"
            )
        install(["mmdebstrap"])
    with (
        step("image", f"building Debian {suite} from its packages"),
        tempfile.TemporaryDirectory(prefix=f"{names.PREFIX}-") as directory,
    ):
        sources = Path(directory) / "sources.list"
        sources.write_text(apt.sources)
        options = Path(directory) / "apt.conf"
        options.write_text(apt.options)
        tarball = Path(directory) / "host.tar"
        neutral = shlex.quote(sources_list(suite, {}))
        run(
            [
                "mmdebstrap",
                "--variant=minbase",
                # The lists stay, as on a server that was updated today.
                "--skip=cleanup/apt/lists",
                f"--include={','.join(PACKAGES)}",
                f"--aptopt={options}",
                f'--customize-hook=chroot "$1" /bin/sh -c {shlex.quote(SETUP)}',
                f'--customize-hook=printf %s {neutral} > "$1/etc/apt/sources.list"',
                suite,
                str(tarball),
                str(sources),
            ],
            timeout=1200,
        )
        if not present(engine, image):
            engine("import", "--change", 'CMD ["/sbin/init"]', str(tarball), image, timeout=300)


def apt_files(apt: AptSettings) -> dict[str, tuple[bytes, int]]:
    """The files that make a host use this machine's mirrors: path, content, mode."""
    options = apt.options
    files = {"etc/apt/sources.list": (apt.sources.encode(), 0o644)}
    if apt.ca_bundle is not None:
        files["etc/apt/lab-ca.crt"] = (apt.ca_bundle, 0o644)
        options += 'Acquire::https::CaInfo "/etc/apt/lab-ca.crt";\n'
    if options:
        files["etc/apt/apt.conf.d/90lab"] = (options.encode(), 0o644)
    return files
