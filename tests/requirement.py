"""Missing tools skip a test, unless SHIPLAP_REQUIRE demands them: then the test fails.

``SHIPLAP_REQUIRE=all`` or a comma list of names. A run whose tools rot away must turn red, not green with skips.
"""

from __future__ import annotations

import os
import shutil

import pytest

PROGRAMS = {
    "docker": ("dockerd", "docker", "containerd", "runc"),
    "podman": ("podman",),
    "skopeo": ("skopeo",),
    "umoci": ("umoci",),
    "registry": ("docker-registry",),
    "tar2sqfs": ("tar2sqfs", "sqfs2tar", "rdsquashfs"),
    "mksquashfs": ("mksquashfs", "unsquashfs"),
    "erofs": ("mkfs.erofs",),
    "veritysetup": ("veritysetup",),
    "qemu": ("qemu-system-x86_64",),
    "shellcheck": ("shellcheck",),
    "systemd": ("systemd-analyze",),
    "shells": ("dash", "busybox", "bash"),
    "gpt": ("sfdisk", "sgdisk"),
    "yocto-tools": ("pseudo",),  # and from PyPI: bitbake-setup, oelint-adv
    "snippets": ("dash", "shellcheck", "grub-script-check", "dtc"),
    "buildroot-tools": ("make", "rsync", "fakeroot", "numfmt"),
    "libarchive-tools": ("bsdtar", "bsdcpio"),
    "efi": ("fsck.fat", "mtype", "mcopy", "objcopy"),
}
# Heavy or rare: demanded only by name, never by `all`.
BY_NAME_ONLY = (
    "engines-newer",
    "tools-newer",
    "oe",
    "buildroot",
    "openwrt",
    "dm",
    "kvm",
    "diffoscope",
    "cross-libraries",
    "power-cuts",
    "sbom-validators",
    "boots",
    "snippet-tools",
)

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def demanded(tool: str) -> bool:
    """Whether SHIPLAP_REQUIRE turns a missing ``tool`` into a failure."""
    wanted = {name.strip() for name in os.environ.get("SHIPLAP_REQUIRE", "").split(",")}
    return tool in wanted or ("all" in wanted and tool in PROGRAMS)


def missing(tool: str, why: str) -> None:
    """Skip the running test because ``tool`` is not usable, or fail it when it is demanded."""
    if demanded(tool):
        pytest.fail(f"SHIPLAP_REQUIRE demands {tool}: {why}")
    pytest.skip(f"{tool}: {why}")


def require(*tools: str) -> None:
    """Skip (or fail, when demanded) unless every program of every named tool is installed."""
    for tool in tools:
        for program in PROGRAMS[tool]:
            if shutil.which(program, path=SEARCH_PATH) is None:
                missing(tool, f"{program} is not installed")
