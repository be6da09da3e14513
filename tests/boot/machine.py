"""A whole machine in qemu: Debian's kernel, an initramfs that opens a verity root, a serial console that is read.

TCG by default: /dev/kvm may exist and not work. Nothing here needs root.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from systems import HERE, System

# The checksums first: f2fs and libcrc32c ask the kernel's crypto layer for them by name, which modules.dep does not say.
MODULES = (
    "crc32c_generic",
    "crc32_generic",
    "virtio_blk",
    "virtio_pci",
    "squashfs",
    "overlay",
    "dm-verity",
    "loop",
    "ext4",
    "erofs",
    "f2fs",
    "iso9660",
)
# A machine that others use as well takes several times as long as an idle one.
BOOT_SECONDS = 600.0

_INIT = """\
#!/bin/busybox sh
# Opens the root by its root hash and goes on in it; says so on the console and stops where it does not hold.
# The root lies in the partitions that kernel-cmdline.txt of `shiplap rootfs` names, or on the disks `root` and `tree`: then the word
# is case.roothash=, because systemd's generator would wait for partitions if it read roothash=.
/bin/busybox mkdir -p /proc /sys /dev /run /new /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "initramfs: no $module"; done </modules/order
refuse() { echo "initramfs: ROOT REFUSED: $*"; poweroff -f; }
# device WORD: of a disk's serial number, or of PARTUUID=…
device() {
    case $1 in
    PARTUUID=*) blkid -t "$1" -o device; return ;;
    esac
    for serial in /sys/block/vd*/serial; do
        if [ "$(cat "$serial")" = "$1" ]; then disk=${serial#/sys/block/}; echo "/dev/${disk%/serial}"; return; fi
    done
    return 1
}
await() {
    tries=0
    until device "$1"; do
        tries=$((tries + 1))
        [ $tries -le 100 ] || return 1
        usleep 100000
    done
}
roothash= data=root tree=tree type=squashfs init=/sbin/init
for word in $(cat /proc/cmdline); do
    case $word in
    roothash=* | case.roothash=*) roothash=${word#*roothash=} ;;
    systemd.verity_root_data=*) data=${word#*=} ;;
    systemd.verity_root_hash=*) tree=${word#*=} ;;
    rootfstype=*) type=${word#*=} ;;
    esac
done
root=$(await "$data") || refuse "no disk $data"
if [ -n "$roothash" ]; then
    hashes=$(await "$tree") || refuse "no disk $tree"
    veritysetup open "$root" root "$hashes" "$roothash" || refuse "dm-verity"
    root=/dev/mapper/root
fi
mount -t "$type" -o ro "$root" /new || refuse "no $type"
mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new "$init"
"""


def cpio_newc(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An initramfs archive (kernel Documentation/driver-api/early-userspace/buffer-format): (name, mode, content), parents first."""
    pieces = []
    for number, (name, mode, data) in enumerate((*files, ("TRAILER!!!", 0, b"")), 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % one for one in fields) + encoded
        pieces += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]
    return b"".join(pieces)


def libraries(program: Path) -> list[Path]:
    """Shared libraries and loader of a program of this system."""
    return [Path(name) for name in HERE.libraries(program)]


def program(name: str) -> Path:
    """A program of this system, also where only root has it in PATH."""
    return HERE.program(name)


@dataclass(frozen=True)
class Board:
    """What makes the kind of a machine: qemu's program with its first words, and the kernel's name for the serial console."""

    qemu: Sequence[str] = ("qemu-system-x86_64",)
    console: str = "ttyS0"


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package: ``boot/vmlinuz-V`` and ``lib/modules/V``."""

    root: Path

    @property
    def image(self) -> Path:
        return next((self.root / "boot").glob("vmlinuz-*"))

    @property
    def version(self) -> str:
        return self.image.name.removeprefix("vmlinuz-")

    @property
    def config(self) -> Path:
        return self.root / f"boot/config-{self.version}"

    def modules(self, wanted: Sequence[str] = MODULES) -> list[Path]:
        """Files of the wanted modules and what they need, in the order to load them; built-in ones are left out."""
        folder = self.root / "lib/modules" / self.version
        needs: dict[str, list[str]] = {}
        for line in (folder / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
        by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
        order: dict[str, None] = {}
        for name in wanted:
            path = by_name.get(name.replace("-", "_"))
            if path is not None:
                for one in (*reversed(needs[path]), path):
                    order.setdefault(one)
        return [folder / one for one in order]


def initramfs(kernel: Kernel, out: Path, system: System = HERE) -> Path:
    """BusyBox, veritysetup and blkid with their libraries, modules, and the script above."""
    files: list[tuple[str, int, bytes]] = []
    seen: dict[str, None] = {}

    def add(name: str, mode: int, data: bytes) -> None:
        for parent in reversed([str(one) for one in Path(name).parents if str(one) != "."]):
            if parent not in seen:
                seen[parent] = None
                files.append((parent, 0o40755, b""))
        if name not in seen:
            seen[name] = None
            files.append((name, mode, data))

    add("init", 0o100755, _INIT.encode())
    for name, place in (("busybox", "bin"), ("veritysetup", "sbin"), ("blkid", "sbin")):
        path = system.program(name)
        add(f"{place}/{name}", 0o100755, path.read_bytes())
        for library, file in system.libraries(path).items():
            add(library.lstrip("/"), 0o100755, file.read_bytes())
    modules = kernel.modules()
    for module in modules:
        add(f"modules/{module.name}", 0o100644, module.read_bytes())
    add("modules/order", 0o100644, "".join(f"{module.name}\n" for module in modules).encode())
    out.write_bytes(cpio_newc(files))
    return out


@dataclass(frozen=True)
class Disk:
    """A raw file as a virtio disk. The guest finds it by ``serial``; ``log``: a file for every write (see logwrites.py)."""

    path: Path
    serial: str
    writable: bool = False
    log: Path | None = None

    def options(self, number: int) -> list[str]:
        node = f"disk{number}"
        read_only = "off" if self.writable else "on"
        # Locks are off because a machine that was killed may not be gone yet; one machine runs at a time.
        words = ["-blockdev", f"driver=file,filename={self.path},node-name={node},read-only={read_only},locking=off"]
        if self.log is not None:
            words += ["-blockdev", f"driver=file,filename={self.log},node-name={node}log,locking=off"]
            words += ["-blockdev", f"driver=blklogwrites,file={node},log={node}log,log-sector-size=512,node-name={node}logged"]
            node = f"{node}logged"
        return [*words, "-device", f"virtio-blk-pci,drive={node},serial={self.serial}"]


class Console:
    """What a machine said on its serial console."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        self.text, self.seconds = text, seconds
        self.lines = [line.strip() for line in text.splitlines()]

    def __contains__(self, words: str) -> bool:
        return words in self.text

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__  # an assertion that fails shows all of it

    def after(self, key: str) -> list[str]:
        """What follows ``KEY`` and a blank, of each line that begins so."""
        return [line[len(key) + 1 :] for line in self.lines if line.startswith(f"{key} ")]

    def value(self, key: str) -> str:
        """The same of the only such line."""
        found = self.after(key)
        assert len(found) == 1, f"{len(found)} lines {key!r} on the console:\n{self.text[-6000:]}"
        return found[0]


class Running:
    """A machine that has been switched on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log, self._start = process, log, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def processor_seconds(self) -> float:
        """What the emulation has cost so far (proc(5), utime and stime): other work on this computer does not lengthen it much."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def console(self) -> Console:
        return Console(self._log.read_text(errors="replace"), self.seconds)

    def until(self, words: str, seconds: float = BOOT_SECONDS) -> Console:
        """Wait for words on the console, or the machine's end."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and words not in self.console():
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {words}\n{self.console().text[-6000:]}"
            time.sleep(0.02)
        return self.console()

    def is_on(self) -> bool:
        return self._process.poll() is None

    def cut_power(self) -> Console:
        self._process.kill()
        self._process.wait()
        return self.console()

    def ended(self, seconds: float = BOOT_SECONDS) -> Console:
        """Wait until the machine has powered itself off."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the machine still runs after {seconds} seconds:\n{self.console().text[-6000:]}") from None
        return self.console()


@dataclass(frozen=True)
class Machine:
    """``append``: words for the kernel's command line. ``initrd`` None: no initramfs."""

    kernel: Kernel
    initrd: Path | None
    disks: Sequence[Disk]
    append: str = ""
    memory_mib: int = 640
    accelerator: str = "tcg,thread=multi"
    extra: Sequence[str] = field(default_factory=tuple)
    board: Board = field(default_factory=Board)

    def command(self) -> list[str]:
        words = [str(program(self.board.qemu[0])), *self.board.qemu[1:], "-accel", self.accelerator, "-smp", "2",
                 "-m", str(self.memory_mib), "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(self.kernel.image),
                 *(("-initrd", str(self.initrd)) if self.initrd else ()),
                 "-append", f"console={self.board.console} panic=-1 quiet {self.append}"]  # fmt: skip
        for number, disk in enumerate(self.disks):
            words += disk.options(number)
        return [*words, *self.extra]

    @contextmanager
    def on(self) -> Iterator[Running]:
        """Switched on; whatever happens, off again at the end."""
        with tempfile.TemporaryDirectory(prefix="shiplap-machine-") as folder:
            log = Path(folder) / "console"
            with log.open("wb") as console:
                process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
            try:
                yield Running(process, log)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def run(self, seconds: float = BOOT_SECONDS) -> Console:
        """Boot, and give back the whole serial console once the machine has powered itself off."""
        with self.on() as machine:
            return machine.ended(seconds)
