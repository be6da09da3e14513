"""A whole machine in qemu: Debian's kernel, an initramfs that opens a verity root, a serial console that is read.

TCG by default: /dev/kvm may exist and not work. Nothing here needs root.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MODULES = ("virtio_blk", "virtio_pci", "squashfs", "overlay", "dm-verity", "loop", "ext4", "erofs")
BOOT_SECONDS = 240.0

_INIT = """\
#!/bin/busybox sh
# Opens the root by its root hash and goes on in it; says so on the console and stops where it does not hold.
/bin/busybox mkdir -p /proc /sys /dev /run /new /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "initramfs: no $module"; done </modules/order
roothash=
for word in $(cat /proc/cmdline); do case $word in roothash=*) roothash=${word#roothash=} ;; esac; done
tries=0
until [ -e /dev/vda ] || [ $tries -gt 50 ]; do tries=$((tries + 1)); usleep 100000; done
if [ -n "$roothash" ]; then
    veritysetup open /dev/vda root /dev/vdb "$roothash" && device=/dev/mapper/root || { echo "initramfs: ROOT REFUSED"; poweroff -f; }
else
    device=/dev/vda
fi
mount -t squashfs -o ro $device /new || { echo "initramfs: ROOT REFUSED"; poweroff -f; }
mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new /sbin/init
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
    """Shared libraries and loader of ``program``, as ldd names them."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return [Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")]


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


def initramfs(kernel: Kernel, out: Path) -> Path:
    """BusyBox, veritysetup with its libraries, modules, and the script above."""
    files: list[tuple[str, int, bytes]] = []
    folders: dict[str, None] = {}

    def add(name: str, mode: int, data: bytes) -> None:
        for parent in reversed([str(one) for one in Path(name).parents if str(one) != "."]):
            if parent not in folders:
                folders[parent] = None
                files.append((parent, 0o40755, b""))
        files.append((name, mode, data))

    veritysetup = Path(shutil.which("veritysetup") or "/sbin/veritysetup")
    add("init", 0o100755, _INIT.encode())
    add("bin/busybox", 0o100755, Path(shutil.which("busybox") or "/bin/busybox").read_bytes())
    for path in dict.fromkeys((veritysetup, *libraries(veritysetup), *libraries(Path(shutil.which("busybox") or "/bin/busybox")))):
        add(str(path).lstrip("/"), 0o100755, path.resolve().read_bytes())
    modules = kernel.modules()
    for module in modules:
        add(f"modules/{module.name}", 0o100644, module.read_bytes())
    add("modules/order", 0o100644, "".join(f"{module.name}\n" for module in modules).encode())
    out.write_bytes(cpio_newc(files))
    return out


@dataclass
class Machine:
    """``disks``: raw files, (path, writable); the first is the root's data, the second its hash tree."""

    kernel: Kernel
    initrd: Path
    disks: Sequence[tuple[Path, bool]]
    append: str = ""
    memory_mib: int = 640
    accelerator: str = "tcg,thread=multi"
    extra: Sequence[str] = field(default_factory=tuple)

    def command(self) -> list[str]:
        words = ["qemu-system-x86_64", "-accel", self.accelerator, "-smp", "2", "-m", str(self.memory_mib), "-nographic", "-no-reboot",
                 "-nic", "none", "-kernel", str(self.kernel.image), "-initrd", str(self.initrd),
                 "-append", f"console=ttyS0 panic=-1 quiet {self.append}"]  # fmt: skip
        for path, writable in self.disks:
            words += ["-drive", f"file={path},format=raw,if=virtio,readonly={'off' if writable else 'on'}"]
        return [*words, *self.extra]

    def run(self, seconds: float = BOOT_SECONDS) -> str:
        """Boot, and give back the whole serial console once the machine has powered itself off."""
        done = subprocess.run(self.command(), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
