"""Firmwares for the test machines: images, ``shiplap build``, a base, ``shiplap rootfs``; and a bench that makes each only once."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archives import ImageSpec, oci_files, oci_layout
from boot.guest import busybox_root, case_disk
from boot.machine import Board, Console, Disk, Kernel, Machine, initramfs, program
from commandline import shiplap_command
from engines import runnable
from images import file
from layertar import build
from requirement import missing
from systems import HERE, System

EPOCH = 1700000000
DATA_MIB = 192
SAID_ALL = "that was everything"


def images(firmware: str, system: System = HERE, platform: str = "linux/amd64") -> list[ImageSpec]:
    """The factory's images of two firmwares: `two` has a newer app:1, and no old:1, whose layer is its own."""
    if firmware == "two":
        second = build([file("srv/second", b"2\n", uid=999, gid=999)])
        return [runnable.image("app:1", extra=second, system=system, platform=platform)]
    old = [runnable.programs_layer(system), build([file("srv/old", b"o\n")])]
    return [runnable.image("app:1", system=system, platform=platform), ImageSpec(old, ["old:1"], platform)]


def oci_digest(image: ImageSpec) -> str:
    """The manifest's digest of an image in an OCI layout."""
    entry = json.loads(_bytes(oci_files([image], compression="none")["index.json"]))["manifests"][0]
    return str(entry["digest"])


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def container(**keys: Any) -> dict[str, Any]:
    """`check` runs what :data:`runnable.CHECK` tries, says so, and stays."""
    script = f"{runnable.CHECK}\necho {SAID_ALL}\nexec sleep 1000000"
    return {"name": "check", "image": "app:1", "network": "none", "args": ["/bin/sh", "-c", script], **keys}


# What most cases ask once the init scripts are through: the container's own words come from the engine's log.
REPORT = f"""\
engine=$(command -v docker || command -v podman)
echo "STATUS $(shiplap-target status --wait 120 2>&1)"
tries=0
until $engine logs check 2>/dev/null | grep -q '{SAID_ALL}' || [ $tries -ge 60 ]; do tries=$((tries + 1)); sleep 1; done
$engine logs check 2>/dev/null | sed 's/^/SAID /'
grep -E ' /usr/share/shiplap/store | /var/lib/(docker|containers)(/storage)? ' /proc/mounts | sed 's/^/MOUNT /'
"""
# For a firmware that has to be refused; the engine may take its time to give up.
REFUSED = """\
echo "STATUS $(shiplap-target status 2>&1)"
tries=0
while pidof dockerd >/dev/null && [ $tries -lt 30 ]; do tries=$((tries + 1)); sleep 1; done
pidof dockerd >/dev/null && echo "ENGINE $(timeout 30 docker ps -aq 2>&1 | tail -n 1)" || echo "ENGINE has ended"
grep -E ' /usr/share/shiplap/store | /var/lib/docker ' /proc/mounts | sed 's/^/MOUNT /'
"""
# ext4 notes in its superblock where it is mounted when the first file is opened; that is no writing of the kit's, so one is opened here.
MOUNT_DATA = """\
mount -t "$(blkid -s TYPE -o value "$(disk data)")" -o noatime "$(disk data)" /var/lib/docker
cat "$(find /var/lib/docker -type f | head -n 1)" >/dev/null 2>&1
sync
"""


@dataclass(frozen=True)
class Firmware:
    """A root and its tree, or a whole disk; what a case adds are words for the kernel, disks and scripts."""

    kernel: Kernel
    initrd: Path
    work: Path
    root: Path
    out: Path
    root_hash: str
    disk: bool = False
    board: Board = field(default_factory=Board)

    def disks(self) -> list[Disk]:
        if self.disk:
            return [Disk(self.root / "disk.img", "disk")]
        return [Disk(self.root / "rootfs.squashfs", "root"), Disk(self.root / "rootfs.verity", "tree")]

    def snippet(self, name: str) -> str:
        """A line that `shiplap rootfs` wrote into ``boot/``."""
        return (self.root / "boot" / name).read_text().strip()

    def machine(
        self,
        after: str = "",
        before: str = "",
        disks: Sequence[Disk] = (),
        words: str = "",
        kernel: tuple[Kernel, Path | None] | None = None,
        command_line: str | None = None,
        **options: Any,
    ) -> Machine:
        """``before``, ``after``: see guest.py. A disk `data` is mounted as the data-root, if ``before`` says nothing.

        ``command_line``: in the place of what `shiplap rootfs` wrote into kernel-cmdline.txt.
        """
        if not before and any(disk.serial == "data" for disk in disks):
            before = MOUNT_DATA
        folder = Path(tempfile.mkdtemp(dir=self.work))
        booted, initrd = kernel or (self.kernel, self.initrd)
        if command_line is None:
            command_line = self.snippet("kernel-cmdline.txt") if self.disk else f"case.roothash={self.root_hash}"
        every_disk = [*self.disks(), case_disk(folder / "case.tar", before, after), *disks]
        return Machine(booted, initrd, every_disk, append=f"{command_line} {words}", board=self.board, **options)

    def boot(self, after: str = "", **case: Any) -> Console:
        return self.machine(after, **case).run()


def kernel_folder(suffix: str) -> Path:
    """SHIPLAP_BOOT_KERNEL names a folder that ``get_kernel`` has made, or will; other kernels lie beside it."""
    folder = Path(os.environ.get("SHIPLAP_BOOT_KERNEL") or Path(tempfile.gettempdir()) / "shiplap-boot-kernel")
    return folder.with_name(folder.name + suffix)


def unpacked_kernel(package: str = "linux-image-cloud-amd64") -> Kernel:
    """A package, or PACKAGE/SUITE, of Debian."""
    folder = kernel_folder("" if package == "linux-image-cloud-amd64" else f"-{package.replace('/', '-')}")
    done = subprocess.run(["sh", Path(__file__).with_name("get_kernel"), folder, package], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("qemu", f"no kernel: {done.stderr.strip()}")
    return Kernel(folder)


@dataclass
class Bench:
    """Makes firmwares, data disks and kernels in ``work``; what was made once is used again. ``system``: whose programs the guests have."""

    work: Path
    board: Board = field(default_factory=Board)
    system: System = HERE
    platform: str = "linux/amd64"
    _made: dict[str, Any] = field(default_factory=dict)

    def _once(self, key: str, make: Callable[[Path], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make(Path(tempfile.mkdtemp(dir=self.work)))
        return self._made[key]

    def unpacked_kernel(self, package: str) -> Kernel:
        return unpacked_kernel(package)

    def images(self, firmware: str) -> list[ImageSpec]:
        return images(firmware, self.system, self.platform)

    def kernel(self, package: str = "linux-image-cloud-amd64") -> tuple[Kernel, Path]:
        """A kernel and an initramfs of it."""

        def make(folder: Path) -> tuple[Kernel, Path]:
            found = self.unpacked_kernel(package)
            return found, initramfs(found, folder / "initrd", self.system)

        made: tuple[Kernel, Path] = self._once(f"kernel {package}", make)
        return made

    def base(self, name: str, make: Callable[[], bytes]) -> Path:
        """A tar of a base root file system."""

        def write(folder: Path) -> Path:
            (folder / "base.tar").write_bytes(make())
            return folder / "base.tar"

        path: Path = self._once(f"base {name}", write)
        return path

    def layout(self, firmware: str) -> Path:
        path: Path = self._once(f"images {firmware}", lambda folder: oci_layout(folder / "oci", self.images(firmware), compression="none"))
        return path

    def store(self, of: str = "one", /, **manifest: Any) -> Path:
        """The output of ``shiplap build`` for the images of a firmware; keys of the manifest replace those here."""

        def make(folder: Path) -> Path:
            listed = [
                {"ref": image.tags[0], "from": f"oci:{self.layout(of)}:{image.tags[0]}", "digest": oci_digest(image)}
                for image in self.images(of)
            ]
            # An archive has no seal of its own.
            sealed = {} if manifest.get("mode") == "archive" else {"verity": {"seal": "always"}}
            whole = {"version": 1, "epoch": EPOCH, "images": listed, "containers": [container()], "target": {"init": ["sysv"]},
                     **sealed, **manifest}  # fmt: skip
            (folder / "shiplap.yaml").write_text(json.dumps(whole))
            _shiplap("build", "-f", str(folder / "shiplap.yaml"), "-o", str(folder / "out"))
            return folder / "out"

        path: Path = self._once(f"store {of} {json.dumps(manifest, sort_keys=True)}", make)
        return path

    def firmware(self, of: str = "one", /, base: Path | None = None, rootfs: Sequence[str] = (), **manifest: Any) -> Firmware:
        """A firmware of those images; ``base``: BusyBox and Docker if not told; ``rootfs``: more options of that verb."""
        chosen = base or self.base("busybox docker", lambda: busybox_root(system=self.system))
        store = self.store(of, **manifest)
        kernel, initrd = self.kernel()

        def make(folder: Path) -> Firmware:
            _shiplap("rootfs", "--base", str(chosen), "--store", str(store), "-o", str(folder / "root"), "--level", "1",
                     "--source-date-epoch", str(EPOCH), *rootfs)  # fmt: skip
            root_hash = (folder / "root/rootfs.roothash").read_text().strip()
            return Firmware(kernel, initrd, folder, folder / "root", store, root_hash, "--disk" in rootfs, self.board)

        made: Firmware = self._once(f"firmware {store} {chosen} {' '.join(rootfs)}", make)
        return made

    def data_disk(self, filesystem: str = "ext4", mebibytes: int = DATA_MIB) -> Disk:
        """An empty writable partition. Nothing of it is initialized later, so that what is written comes from who writes."""
        path = Path(tempfile.mkdtemp(dir=self.work)) / "data.img"
        with path.open("wb") as image:
            image.truncate(mebibytes << 20)
        made = {"ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "f2fs": ["mkfs.f2fs", "-q"]}[filesystem]
        subprocess.run([program(made[0]), *made[1:], path], check=True, capture_output=True)
        return Disk(path, "data", writable=True)


def _shiplap(*arguments: str) -> None:
    done = shiplap_command(*arguments)
    assert done.returncode == 0, done.stderr
