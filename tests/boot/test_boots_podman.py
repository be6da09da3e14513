"""Podman on a real machine, whose store is only read where it is mounted. By name only: SHIPLAP_REQUIRE=boots."""

from __future__ import annotations

from boot.cases import requires_boots, said_everything
from boot.firmware import REPORT, Bench, images, oci_digest
from boot.podmanguest import podman_root

pytestmark = requires_boots

GRAPHROOT = "/var/lib/containers/storage"
RUN_BY_EVERY_NAME = f"""\
run() {{ podman run --rm --network none "$2" /bin/sh -c 'cat /data/keep' 2>&1 | sed "s/^/$1 /"; }}
run TAG app:1
run DIGEST docker.io/library/app@{oci_digest(images("one")[0])}
"""


def test_podman_on_a_persistent_graphroot_writes_nothing_of_the_kits_at_the_second_boot(bench: Bench) -> None:
    firmware = bench.firmware(
        base=bench.base("busybox podman", podman_root), engine="podman", **{"data-root": {"path": GRAPHROOT, "persistence": "persistent"}}
    )
    disk = bench.data_disk()
    mount = f'mount -t ext4 -o noatime "$(disk data)" {GRAPHROOT}\ncat "$(find {GRAPHROOT} -type f | head -n 1)" >/dev/null 2>&1\nsync\n'
    for boot in ("first", "second"):
        console = firmware.boot(REPORT + RUN_BY_EVERY_NAME, before=mount, disks=[disk])
        assert said_everything(console)
        assert [console.value(key) for key in ("TAG", "DIGEST")] == ["kept"] * 2
        if boot == "second":
            assert console.value("SECTORS S59shiplap-store") == "0"
