"""A device with systemd and a Podman that has Quadlet: its own generator, its own service manager, the kit's units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import runnable
from engines.installations import Installation
from engines.systemdroot import SYSTEMD, SystemdRoot
from engines.targetkit import firmware
from requirement import missing

LOOP = ["/bin/sh", "-c", 'echo "$0" "<$A>"; while :; do /bin/sleep 1; done', "it's $HOME"]


def container(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "args": LOOP, "network": "none", "user": "0"} | keys


LOOPING = container(
    "loop", restart="always", env={"A": "x 'y' \"z\" $Q `id` %h"}, health={"cmd": "true", "interval": "2s"}, volumes=["kept:/kept"]
)  # fmt: skip
CONTAINERS = [LOOPING, container("next", after=["loop"], **{"wait-for": ["/run/ready"]})]


def systemd_root(installation: Installation) -> Path:
    root = installation.demand("podman")
    if root == Path("/") or not (root / SYSTEMD).exists():
        missing("engines-newer", f"{root} has no systemd to start, or is this machine's own")
    return root


@pytest.mark.parametrize("quadlet", [True, False], ids=["quadlet", "the kit's own service"])
def test_systemd_starts_the_containers_in_order_and_again_when_they_end(installation: Installation, quadlet: bool, tmp_path: Path) -> None:
    base = systemd_root(installation)
    made = firmware(
        tmp_path / "made", [runnable.image("app:1")], "/var/lib/containers/storage", "volatile", engine="podman",
        target={"init": ["systemd"], "quadlet": quadlet}, containers=CONTAINERS,
    )  # fmt: skip
    ready = made.root / "usr/lib/systemd/system/multi-user.target.wants/ready.service"
    ready.write_text("[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep 2\nExecStart=/bin/touch /run/ready\n")
    ready.rename(made.root / "usr/lib/systemd/system/ready.service")
    ready.symlink_to("../ready.service")
    with SystemdRoot(tmp_path / "1", made, base) as device:
        said = device.run(["/usr/sbin/shiplap-target", "status", "--wait", "60"])
        assert b"every container runs" in said.stdout
        assert device.run(["podman", "logs", "loop"]).stdout.decode() == "it's $HOME <x 'y' \"z\" $Q `id` %h>\n"
        well = "podman inspect --format '{{.State.Health.Status}}' loop | grep -qx healthy"
        device.run(["sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9; do {well} && exit; sleep 1; done; exit 1"])
        made_first = device.run(["podman", "inspect", "--format", "{{.Id}}", "loop"]).stdout
        device.run(["podman", "exec", "loop", "/bin/sh", "-c", "echo 1 > /kept/it"])
        device.run(["sh", "-c", "kill -9 $(podman inspect --format '{{.State.Pid}}' loop); sleep 1"])
        device.run(["/usr/sbin/shiplap-target", "status", "--wait", "30"])
        assert device.run(["podman", "exec", "loop", "/bin/cat", "/kept/it"]).stdout == b"1\n"
        if quadlet:  # made anew at each start, so of the latest definition
            assert device.run(["podman", "inspect", "--format", "{{.Id}}", "loop"]).stdout != made_first
            units = device.run(["systemctl", "is-active", "container-loop.service", "container-next.service"]).stdout
            assert units == b"active\nactive\n"
        assert b"shiplap-store.service" in device.run(["systemctl", "show", "--property=Requires", "podman.socket"]).stdout


def test_systemd_starts_nothing_of_quadlet_s_after_a_failure(installation: Installation, tmp_path: Path) -> None:
    base = systemd_root(installation)
    made = firmware(
        tmp_path / "made", [runnable.image("app:1")], "/var/lib/containers/storage", "volatile", engine="podman",
        target={"init": ["systemd"], "quadlet": True}, containers=CONTAINERS[:1],
    )  # fmt: skip
    made.change(STORE_ID="0" * 64)
    with SystemdRoot(tmp_path / "1", made, base) as device:
        states = device.run(
            ["systemctl", "is-active", "shiplap-store", "shiplap-containers", "container-loop", "podman.socket"], check=False
        )
        assert states.stdout == b"failed\ninactive\ninactive\ninactive\n"
        for words in (["podman", "ps"], ["podman", "run", "--network=none", "app:1"], ["systemctl", "start", "podman.service"]):
            assert device.run(words, check=False).returncode
