"""Can this kernel use that store? A kernel's ``.config`` against what a store and its engine need.

The device finds out too late, and says "invalid argument". Symbols and what they do: the kernel's own Kconfig files
(fs/squashfs, fs/overlayfs, drivers/md, init) and, for the engine, what moby's contrib/check-config.sh calls generally necessary.
"""

from __future__ import annotations

import enum
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from shiplap.core.errors import Refused

CONFIG_MAX_BYTES = 4 << 20
_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")


class KernelConfigInvalid(Refused):
    """A file that is no kernel configuration."""


class Weight(enum.Enum):
    """``MISSING``: the store cannot be used. ``LIMITS``: something of it cannot. ``LOOK``: the kernel's security may forbid it."""

    MISSING = "missing"
    LIMITS = "limits"
    LOOK = "look"


@dataclass(frozen=True, slots=True)
class StoreNeeds:
    """What a store and its device ask of a kernel.

    ``filesystem``: squashfs, erofs, or none for an archive. ``compression``: of the store image, ``none`` for none. ``has_xattrs``: file
    capabilities or opaque directories are in it. ``signed``: its root hash has a signature. ``placement``: file, partition or tree.
    ``persistence``: of the data-root. ``bridge``: containers get a network of their own.
    """

    engine: str = "docker"
    filesystem: str = "squashfs"
    compression: str = "zstd"
    has_xattrs: bool = True
    sealed: bool = True
    signed: bool = False
    verity_hash: str = "sha256"
    placement: str = "file"
    persistence: str = "volatile"
    bridge: bool = True


@dataclass(frozen=True, slots=True)
class KernelFinding:
    """``symbol`` without CONFIG_; ``state``: ``n``, ``m`` or as it is set; ``why`` and ``remedy`` are sentences."""

    weight: Weight
    symbol: str
    state: str
    why: str
    remedy: str


def read_config(raw: bytes, name: str) -> dict[str, str]:
    """Symbols without CONFIG_ → ``y``, ``m``, ``n`` or a value without quotes; gzip (``/proc/config.gz``) is opened.

    Raises KernelConfigInvalid for anything else.
    """
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = zlib.decompressobj(wbits=31).decompress(raw, CONFIG_MAX_BYTES + 1)
        except zlib.error as error:
            raise KernelConfigInvalid(f"{name} is not gzip data: {error}") from error
    if len(raw) > CONFIG_MAX_BYTES:
        raise KernelConfigInvalid(f"{name} has more than {CONFIG_MAX_BYTES} bytes, more than any kernel's configuration")
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        if match := _SET.fullmatch(line.strip()):
            found[match[1]] = match[2].strip('"')
        elif match := _UNSET.fullmatch(line.strip()):
            found[match[1]] = "n"
    if not found:
        raise KernelConfigInvalid(
            f"{name} is no kernel configuration: no line CONFIG_…=… in it", hint="it is the file .config of a built kernel"
        )
    return found


def check_kernel(config: Mapping[str, str], needs: StoreNeeds) -> list[KernelFinding]:
    """Everything that is missing or may stand in the way, the gravest first, then by symbol."""
    found = [*_image(config, needs), *_sealing(config, needs), *_data_root(config, needs), *_engine(config, needs), *_security(config)]
    order = list(Weight)
    return sorted(found, key=lambda one: (order.index(one.weight), one.symbol))


def _state(config: Mapping[str, str], symbol: str) -> str:
    return config.get(symbol, "n")


def _has(config: Mapping[str, str], symbol: str) -> bool:
    return _state(config, symbol) not in ("n", "")


def _has_any(config: Mapping[str, str], symbols: Iterable[str]) -> bool:
    return any(_has(config, symbol) for symbol in symbols)


def _need(config: Mapping[str, str], symbol: str, why: str, remedy: str = "", weight: Weight = Weight.MISSING) -> Iterator[KernelFinding]:
    if not _has(config, symbol):
        yield KernelFinding(weight, symbol, _state(config, symbol), why, remedy or f"set CONFIG_{symbol}=y")


_LOST = "file capabilities are lost, and opaque directories show again what a layer deleted"
_WITHOUT_XATTRS = "set CONFIG_SQUASHFS_XATTR=y, or build the store with `squashfs: {whiteouts: explicit}`, or use `mode: archive`"
# SquashFS's name of the compressor → symbol (fs/squashfs/Kconfig). gzip is zlib there.
SQUASHFS_SYMBOLS = {"zstd": "ZSTD", "xz": "XZ", "gzip": "ZLIB", "lz4": "LZ4", "lzo": "LZO"}
# The same for EROFS (fs/erofs/Kconfig); lz4 comes with EROFS_FS_ZIP itself.
_EROFS_SYMBOLS = {"lzma": "ZIP_LZMA", "deflate": "ZIP_DEFLATE", "zstd": "ZIP_ZSTD"}


def _image(config: Mapping[str, str], needs: StoreNeeds) -> Iterator[KernelFinding]:
    yield from _need(config, "OVERLAY_FS", "layers are stacked by overlayfs")
    if needs.placement == "tree":
        # Which file system the root has, nobody here knows.
        if needs.has_xattrs and _has(config, "SQUASHFS"):
            why = f"in a SquashFS root the unpacked store has no extended attributes: {_LOST}"
            yield from _need(config, "SQUASHFS_XATTR", why, _WITHOUT_XATTRS, weight=Weight.LOOK)
        return
    if needs.filesystem == "none":
        return
    if needs.filesystem == "erofs":
        yield from _need(config, "EROFS_FS", "the store image is EROFS")
        if needs.compression != "none":
            yield from _need(config, "EROFS_FS_ZIP", "the store image is compressed EROFS")
            if needs.compression in _EROFS_SYMBOLS:
                yield from _need(
                    config, "EROFS_FS_" + _EROFS_SYMBOLS[needs.compression], f"the store image is compressed with {needs.compression}"
                )
        if needs.has_xattrs:
            yield from _need(config, "EROFS_FS_XATTR", "file capabilities and opaque directories are extended attributes")
    else:
        yield from _need(config, "SQUASHFS", "the store image is SquashFS")
        symbol = SQUASHFS_SYMBOLS.get(needs.compression)
        if symbol is not None:
            have = [name for name, one in SQUASHFS_SYMBOLS.items() if _has(config, "SQUASHFS_" + one)]
            other = f"; or build the store with `squashfs: {{compression: {have[0]}}}`, which this kernel has" if have else ""
            yield from _need(
                config,
                f"SQUASHFS_{symbol}",
                f"the store image is compressed with {needs.compression}",
                f"set CONFIG_SQUASHFS_{symbol}=y{other}",
            )
        if needs.has_xattrs:
            yield from _need(config, "SQUASHFS_XATTR", f"without it {_LOST}", _WITHOUT_XATTRS)
    if needs.placement == "file":
        yield from _need(
            config,
            "BLK_DEV_LOOP",
            "the store image is a file, mounted through a loop device",
            "set CONFIG_BLK_DEV_LOOP=y, or use `placement: partition`",
        )
    else:
        yield from _need(config, "EFI_PARTITION", "the store's partitions are found by their UUIDs, which only a GPT has")


# Faster code for x86: until Linux 6.15, of 6.16, and since 6.17, where it is never left out.
_FAST_SHA256 = ("CRYPTO_SHA256_SSSE3", "CRYPTO_SHA256_X86_64", "CRYPTO_LIB_SHA256_ARCH")


def _sealing(config: Mapping[str, str], needs: StoreNeeds) -> Iterator[KernelFinding]:
    if not needs.sealed:
        return
    other = "; or `verity: {check: sha256}` where the kernel has no device mapper"
    yield from _need(
        config, "BLK_DEV_DM", "a sealed store is read through the device mapper", f"set CONFIG_MD=y and CONFIG_BLK_DEV_DM=y{other}"
    )
    yield from _need(config, "DM_VERITY", "a sealed store is read through dm-verity", f"set CONFIG_DM_VERITY=y{other}")
    symbol = "CRYPTO_SHA512" if needs.verity_hash in ("sha384", "sha512") else f"CRYPTO_{needs.verity_hash.upper()}"
    yield from _need(config, symbol, f"the hash tree is made of {needs.verity_hash}")
    if symbol == "CRYPTO_SHA256" and _has(config, "DM_VERITY") and _has(config, "X86_64") and not _has_any(config, _FAST_SHA256):
        yield from _need(
            config, _FAST_SHA256[0], "without it every block is hashed by generic code, several times slower", weight=Weight.LIMITS
        )
    if needs.signed:
        yield from _signature(config)


def _signature(config: Mapping[str, str]) -> Iterator[KernelFinding]:
    symbol = "DM_VERITY_VERIFY_ROOTHASH_SIG"
    yield from _need(config, symbol, "the store's root hash has a signature, and a kernel without it refuses to open it with one")
    if _has(config, symbol) and not _has(config, "SYSTEM_TRUSTED_KEYS"):
        yield KernelFinding(
            Weight.LOOK, "SYSTEM_TRUSTED_KEYS", _state(config, "SYSTEM_TRUSTED_KEYS"),
            "no certificate of yours is built into this kernel; a signature by a key that it does not trust is refused",
            "name a file with the signer's certificate in PEM, or bring it into a keyring that the kernel was set to ask as well",
        )  # fmt: skip


def _data_root(config: Mapping[str, str], needs: StoreNeeds) -> Iterator[KernelFinding]:
    if needs.persistence == "volatile":
        yield from _need(config, "TMPFS", "the volatile data-root is a tmpfs")
        yield from _need(
            config, "TMPFS_XATTR", "overlayfs marks what a container deletes with extended attributes of the tmpfs that holds the data-root"
        )
        return
    for symbol in ("EXT4_FS", "F2FS_FS", "XFS_FS", "BTRFS_FS"):
        if _has(config, symbol):
            break
    else:
        yield KernelFinding(
            Weight.MISSING, "EXT4_FS", _state(config, "EXT4_FS"), "a persistent data-root needs a file system that overlayfs can write to",
            "set CONFIG_EXT4_FS=y or CONFIG_F2FS_FS=y",
        )  # fmt: skip
    if _has(config, "F2FS_FS") and not _has(config, "EXT4_FS"):
        yield from _need(config, "F2FS_FS_XATTR", "overlayfs needs extended attributes of the data-root's file system")


_ENGINE = {
    "NAMESPACES": "containers live in namespaces",
    "PID_NS": "containers live in namespaces",
    "IPC_NS": "containers live in namespaces",
    "UTS_NS": "containers live in namespaces",
    "NET_NS": "containers live in namespaces, also with `network: none`",
    "CGROUPS": "the engine puts each container into a control group",
    "CGROUP_DEVICE": "the runtime restricts devices",
    "CGROUP_FREEZER": "the runtime freezes containers",
    "CGROUP_SCHED": "the runtime asks for CPU shares",
    "CPUSETS": "the runtime asks for CPU sets",
    "MEMCG": "`memory:` limits need it",
    "POSIX_MQUEUE": "the runtime mounts /dev/mqueue",
    "KEYS": "the runtime joins a session keyring",
    "EPOLL": "the engine's programs are written in Go",
    "FUTEX": "the engine's programs are written in Go",
}
_BRIDGE = {
    "VETH": "a container with a network has a veth pair",
    "BRIDGE": "the engine's default network is a bridge",
    "NETFILTER_XT_MATCH_ADDRTYPE": "the engine's rules for published ports",
    "IP_NF_NAT": "containers reach the outside through NAT",
}
# What the runtime can do without on cgroup v2.
_OF_CGROUP_V1 = ("CGROUP_DEVICE", "CGROUP_FREEZER")


def _engine(config: Mapping[str, str], needs: StoreNeeds) -> Iterator[KernelFinding]:
    for symbol, why in _ENGINE.items():
        weight = Weight.LIMITS if symbol in ("MEMCG", "CPUSETS", *_OF_CGROUP_V1) else Weight.MISSING
        yield from _need(config, symbol, why, weight=weight)
    if not _has(config, "CGROUP_BPF"):
        yield from _need(config, "CGROUP_BPF", "on cgroup v2 devices are restricted by BPF programs", weight=Weight.LIMITS)
    if not _has(config, "SECCOMP_FILTER"):
        yield from _need(
            config, "SECCOMP_FILTER", "without it containers run without the engine's system call filter", weight=Weight.LIMITS
        )
    if needs.bridge:
        # iptables has two ways into the kernel: tables of its own, which newer kernels call legacy and may lack, and those of nftables.
        by_nftables = _has(config, "NFT_COMPAT") and _has(config, "NFT_NAT")
        for symbol, why in _BRIDGE.items():
            if symbol == "IP_NF_NAT" and by_nftables:
                continue
            yield from _need(
                config, symbol, why, "set it, or give every container `network: none` or `network: host`", weight=Weight.LIMITS
            )


# symbol: what it may forbid, and the rule that helps
_SECURITY = {
    "SECURITY_SELINUX": (
        "files in the store carry no SELinux labels: under an enforcing policy containers may not execute them",
        "mount the store with `context=system_u:object_r:container_ro_file_t:s0`, or run the engine without `selinux-enabled`",
    ),
    "IMA_APPRAISE": (
        "a policy with `appraise func=BPRM_CHECK` refuses programs without a signature in security.ima, which layers seldom have",
        "exclude the verified store: `dont_appraise fsmagic=0x73717368` (SquashFS) and `dont_appraise fsmagic=0x794c7630` (overlayfs)",
    ),
    "SECURITY_APPARMOR": (
        "the engine loads its profile with apparmor_parser; where AppArmor is on and the parser is missing, no container starts",
        "ship apparmor_parser, or boot with `apparmor=0`, or give containers `security-opt: [apparmor=unconfined]`",
    ),
    "SECURITY_LOADPIN_ENFORCE": (
        "kernel modules in a store image are on another device than the first module's: loading them is refused",
        "load modules from the root file system only",
    ),
}


# The same symbols' names in CONFIG_LSM (Linux 5.1 and newer): what is built but not listed there sleeps until the command line says `lsm=`.
_IN_LSM = {"SECURITY_SELINUX": "selinux", "SECURITY_APPARMOR": "apparmor", "SECURITY_LOADPIN_ENFORCE": "loadpin"}


def _security(config: Mapping[str, str]) -> Iterator[KernelFinding]:
    started = config.get("LSM", "").split(",")
    for symbol, (why, remedy) in _SECURITY.items():
        if started != [""] and _IN_LSM.get(symbol, started[0]) not in started:
            continue
        if _has(config, symbol):
            yield KernelFinding(Weight.LOOK, symbol, _state(config, symbol), why, remedy)


def running_config(release: str) -> Iterator[str]:
    """Where a running system keeps its configuration, the most certain first. ``release``: as ``uname -r`` says."""
    yield "/proc/config.gz"
    yield f"/boot/config-{release}"
    yield f"/lib/modules/{release}/config"


__all__ = ["KernelConfigInvalid", "KernelFinding", "StoreNeeds", "Weight", "check_kernel", "read_config", "running_config"]
