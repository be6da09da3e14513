"""A kernel's configuration against what a store needs."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shiplap.rootfs.kernelcheck import CONFIG_MAX_BYTES, KernelConfigInvalid, StoreNeeds, Weight, check_kernel, read_config

DEFAULT = StoreNeeds()
# Everything that a default store needs, in the ways that a .config can say it.
GOOD = """\
CONFIG_SQUASHFS=y
CONFIG_SQUASHFS_ZSTD=y
CONFIG_SQUASHFS_XATTR=y
CONFIG_OVERLAY_FS=m
CONFIG_BLK_DEV_LOOP=m
CONFIG_BLK_DEV_DM=y
CONFIG_DM_VERITY=y
CONFIG_CRYPTO_SHA256=y
CONFIG_TMPFS=y
CONFIG_TMPFS_XATTR=y
CONFIG_NAMESPACES=y
CONFIG_PID_NS=y
CONFIG_IPC_NS=y
CONFIG_UTS_NS=y
CONFIG_NET_NS=y
CONFIG_CGROUPS=y
CONFIG_CGROUP_SCHED=y
CONFIG_POSIX_MQUEUE=y
CONFIG_KEYS=y
CONFIG_EPOLL=y
CONFIG_FUTEX=y
CONFIG_DEFAULT_HOSTNAME="(none)"
# CONFIG_SECURITY_SELINUX is not set
"""
# OpenWrt's usual SquashFS: xz only, no extended attributes.
OPENWRT = GOOD.replace("CONFIG_SQUASHFS_ZSTD=y\nCONFIG_SQUASHFS_XATTR=y\n", "# CONFIG_SQUASHFS_XATTR is not set\nCONFIG_SQUASHFS_XZ=y\n")


def missing(text: str, needs: StoreNeeds = DEFAULT) -> set[str]:
    found = check_kernel(read_config(text.encode(), ".config"), needs)
    return {one.symbol for one in found if one.weight is Weight.MISSING}


def test_a_kernel_with_everything_lacks_nothing() -> None:
    assert missing(GOOD) == set()


@pytest.mark.parametrize("line", [line for line in GOOD.splitlines() if line.endswith(("=y", "=m"))])
def test_each_symbol_is_missed_when_it_is_not_there(line: str) -> None:
    symbol = line.partition("=")[0].removeprefix("CONFIG_")
    assert missing(GOOD.replace(line + "\n", "")) == {symbol}
    assert missing(GOOD.replace(line, f"# CONFIG_{symbol} is not set")) == {symbol}
    assert missing(GOOD.replace(line, f"CONFIG_{symbol}=n")) == {symbol}


def test_openwrt_s_squashfs_is_told_what_it_could_do_instead() -> None:
    found = {one.symbol: one for one in check_kernel(read_config(OPENWRT.encode(), ".config"), DEFAULT) if one.weight is Weight.MISSING}
    assert set(found) == {"SQUASHFS_ZSTD", "SQUASHFS_XATTR"}
    assert "compression: xz" in found["SQUASHFS_ZSTD"].remedy
    assert "whiteouts: explicit" in found["SQUASHFS_XATTR"].remedy
    assert missing(OPENWRT, replace(DEFAULT, compression="xz", has_xattrs=False)) == set()


def test_an_unpacked_store_in_a_squashfs_root_wants_a_look() -> None:
    """Which file system the root has, the configuration of a kernel does not say."""
    needs = replace(DEFAULT, placement="tree", sealed=False)
    found = {one.symbol: one.weight for one in check_kernel(read_config(OPENWRT.encode(), ".config"), needs)}
    assert found.pop("SQUASHFS_XATTR") is Weight.LOOK
    assert Weight.MISSING not in found.values()
    for config, one in ((GOOD, needs), (OPENWRT, replace(needs, has_xattrs=False)), (OPENWRT.replace("SQUASHFS=y", "SQUASHFS=n"), needs)):
        assert "SQUASHFS_XATTR" not in {finding.symbol for finding in check_kernel(read_config(config.encode(), ".config"), one)}


@pytest.mark.parametrize(
    ("needs", "without"),
    [
        (replace(DEFAULT, sealed=False), ("BLK_DEV_DM", "DM_VERITY", "CRYPTO_SHA256")),
        (replace(DEFAULT, placement="partition"), ("BLK_DEV_LOOP",)),
        (replace(DEFAULT, filesystem="none", sealed=False), ("SQUASHFS", "SQUASHFS_ZSTD", "SQUASHFS_XATTR", "BLK_DEV_LOOP", "DM_VERITY")),
        (replace(DEFAULT, has_xattrs=False), ("SQUASHFS_XATTR",)),
        (replace(DEFAULT, compression="none", has_xattrs=False), ("SQUASHFS_ZSTD", "SQUASHFS_XATTR")),
    ],
)
def test_what_a_store_does_not_need_is_not_asked_for(needs: StoreNeeds, without: tuple[str, ...]) -> None:
    text = GOOD
    for symbol in without:
        text = text.replace(f"CONFIG_{symbol}=y\n", "").replace(f"CONFIG_{symbol}=m\n", "")
    assert missing(text + "CONFIG_EFI_PARTITION=y\n", needs) == set()
    assert missing(text) == set(without)


@pytest.mark.parametrize(
    ("needs", "symbols"),
    [
        (replace(DEFAULT, filesystem="erofs", compression="zstd"), {"EROFS_FS", "EROFS_FS_ZIP", "EROFS_FS_ZIP_ZSTD", "EROFS_FS_XATTR"}),
        (replace(DEFAULT, filesystem="erofs", compression="none", has_xattrs=False), {"EROFS_FS"}),
        (replace(DEFAULT, placement="partition"), {"EFI_PARTITION"}),
        (replace(DEFAULT, signed=True), {"DM_VERITY_VERIFY_ROOTHASH_SIG"}),
        (replace(DEFAULT, compression="lz4"), {"SQUASHFS_LZ4"}),
        (replace(DEFAULT, compression="gzip"), {"SQUASHFS_ZLIB"}),
        (replace(DEFAULT, persistence="persistent"), {"EXT4_FS"}),
        (replace(DEFAULT, verity_hash="sha512"), {"CRYPTO_SHA512"}),
        (replace(DEFAULT, verity_hash="sha384"), {"CRYPTO_SHA512"}),
        (replace(DEFAULT, verity_hash="sha1"), {"CRYPTO_SHA1"}),
    ],
)
def test_other_stores_need_other_symbols(needs: StoreNeeds, symbols: set[str]) -> None:
    assert missing(GOOD, needs) == symbols


def test_f2fs_serves_as_well_as_ext4_with_its_attributes() -> None:
    needs = replace(DEFAULT, persistence="persistent")
    assert missing(GOOD + "CONFIG_F2FS_FS=y\n", needs) == {"F2FS_FS_XATTR"}
    assert missing(GOOD + "CONFIG_F2FS_FS=y\nCONFIG_F2FS_FS_XATTR=y\n", needs) == set()


def test_security_that_may_forbid_execution_is_named_with_the_rule_that_helps() -> None:
    text = GOOD.replace("# CONFIG_SECURITY_SELINUX is not set", "CONFIG_SECURITY_SELINUX=y")
    text += "CONFIG_IMA_APPRAISE=y\nCONFIG_SECURITY_APPARMOR=y\nCONFIG_SECURITY_LOADPIN_ENFORCE=y\n"
    found = {one.symbol: one for one in check_kernel(read_config(text.encode(), ".config"), DEFAULT) if one.weight is Weight.LOOK}
    assert set(found) == {"SECURITY_SELINUX", "IMA_APPRAISE", "SECURITY_APPARMOR", "SECURITY_LOADPIN_ENFORCE"}
    assert "context=" in found["SECURITY_SELINUX"].remedy
    assert "dont_appraise" in found["IMA_APPRAISE"].remedy


def test_containers_without_a_bridge_need_none() -> None:
    config = read_config(GOOD.encode(), ".config")
    bridge = {one.symbol for one in check_kernel(config, DEFAULT)} - {
        one.symbol for one in check_kernel(config, replace(DEFAULT, bridge=False))
    }
    assert bridge == {"VETH", "BRIDGE", "NETFILTER_XT_MATCH_ADDRTYPE", "IP_NF_NAT"}


def remarks(text: str, needs: StoreNeeds = DEFAULT) -> dict[str, Weight]:
    return {one.symbol: one.weight for one in check_kernel(read_config(text.encode(), ".config"), needs)}


@pytest.mark.parametrize(
    "fast", ["CRYPTO_SHA256_SSSE3=m", "CRYPTO_SHA256_X86_64=y", "CRYPTO_LIB_SHA256_ARCH=y"], ids=["until 6.15", "6.16", "since 6.17"]
)
def test_slow_hashing_is_told_by_the_name_that_fast_code_has_in_that_kernel(fast: str) -> None:
    text = GOOD + "CONFIG_X86_64=y\n"
    assert remarks(text)["CRYPTO_SHA256_SSSE3"] is Weight.LIMITS
    assert "CRYPTO_SHA256_SSSE3" not in remarks(f"{text}CONFIG_{fast}\n")


def test_a_kernel_without_the_legacy_tables_of_iptables_has_a_bridge_by_nftables() -> None:
    """Linux 6.12 calls them legacy, and they can be left out."""
    nftables = GOOD + "# CONFIG_IP_NF_IPTABLES_LEGACY is not set\nCONFIG_NFT_COMPAT=m\nCONFIG_NFT_NAT=m\n"
    assert "IP_NF_NAT" not in remarks(nftables)
    for line in ("CONFIG_NFT_COMPAT=m\n", "CONFIG_NFT_NAT=m\n"):
        assert remarks(nftables.replace(line, ""))["IP_NF_NAT"] is Weight.LIMITS


@pytest.mark.parametrize("split", ["MEMCG_V1", "CPUSETS_V1", "SQUASHFS_FILE_CACHE", "SQUASHFS_COMPILE_DECOMP_SINGLE", "SECURITY_LOADPIN"])
def test_what_newer_kernels_split_off_is_not_asked_for(split: str) -> None:
    assert split not in remarks(GOOD)
    assert remarks(f"{GOOD}# CONFIG_{split} is not set\n") == remarks(GOOD)


def test_security_that_the_kernel_does_not_start_by_itself_is_not_named() -> None:
    built = GOOD + "CONFIG_SECURITY_SELINUX=y\nCONFIG_SECURITY_APPARMOR=y\nCONFIG_IMA_APPRAISE=y\n"
    looks = {"SECURITY_SELINUX", "SECURITY_APPARMOR", "IMA_APPRAISE"}
    # Linux before 5.1 has no such list.
    assert set(remarks(built)) & looks == looks
    assert set(remarks(f'{built}CONFIG_LSM="landlock,yama,apparmor,bpf"\n')) & looks == {"SECURITY_APPARMOR", "IMA_APPRAISE"}
    assert set(remarks(f'{built}CONFIG_LSM="landlock,selinux"\n')) & looks == {"SECURITY_SELINUX", "IMA_APPRAISE"}


def test_a_signed_store_wants_a_look_at_the_keys_that_the_kernel_trusts() -> None:
    able = GOOD + "CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG=y\n"
    signed = replace(DEFAULT, signed=True)
    assert missing(able, signed) == set()
    assert remarks(able + 'CONFIG_SYSTEM_TRUSTED_KEYS=""\n', signed)["SYSTEM_TRUSTED_KEYS"] is Weight.LOOK
    assert "SYSTEM_TRUSTED_KEYS" not in remarks(able + 'CONFIG_SYSTEM_TRUSTED_KEYS="board.pem"\n', signed)
    assert "SYSTEM_TRUSTED_KEYS" not in remarks(able)


def test_proc_config_gz_is_opened() -> None:
    assert read_config(gzip.compress(GOOD.encode()), "x") == read_config(GOOD.encode(), "x")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no kernel configuration"),
        (b"\x7fELF" + bytes(1000), "is no kernel configuration"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip|configuration"),
        (gzip.compress(bytes(CONFIG_MAX_BYTES * 3)), "more than any kernel"),
        (b"CONFIG_A=y\n" * (CONFIG_MAX_BYTES // 11 + 1), "more than any kernel"),
    ],
    ids=("empty", "program", "broken gzip", "gzip bomb", "too long"),
)
def test_what_is_no_configuration_is_refused_in_bounded_memory(raw: bytes, message: str) -> None:
    with pytest.raises(KernelConfigInvalid, match=message):
        read_config(raw, "x")


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_configuration_or_refused(raw: bytes) -> None:
    for data in (raw, GOOD.encode() + raw, b"\x1f\x8b" + raw):
        try:
            check_kernel(read_config(data, "x"), DEFAULT)
        except KernelConfigInvalid:
            pass
