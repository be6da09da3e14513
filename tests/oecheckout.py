"""Real bitbake on real checkouts of OpenEmbedded, without the compilers, kernels and hours of a whole build.

``SHIPLAP_OE_CORE`` and ``SHIPLAP_BITBAKE`` name checkouts of openembedded-core and of the bitbake that belongs to it. A layer of our
own masks every recipe of OE-Core and lets this system's programs stand for the native ones (pseudo, dpkg, apt, mksquashfs, wic's
tools, Python). All classes are OE-Core's own: fetching, sysroots, package QA, sstate, packages, do_rootfs under pseudo, images.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requirement import missing

_NOBODY = 65534
_HOST_PROGRAMS = (
    "apt-cache apt-ftparchive apt-get dpkg dpkg-deb dpkg-query dpkg-split getfattr mksquashfs nativepython3 pyproject-build rpmbuild xz "
    "mcopy mkdosfs mkfs.ext4 fsck.ext4 debugfs dumpe2fs e2fsck resize2fs tune2fs mkfs.vfat parted sfdisk sgdisk"
)
# What images and packages depend on and this system has, or a masked build never runs.
_PROVIDED = """
    binutils-cross-x86_64 bmaptool-native btrfs-tools-native buildtools-tarball cdrtools-native createrepo-c-native
    cross-localedef-native dosfstools-native e2fsprogs-native erofs-utils-native gcc-cross-x86_64 gptfdisk-native grub-efi
    grub-efi-native ldconfig-native makedevs-native meta-extsdk-toolchain mtools-native nativesdk-glibc-locale
    nativesdk-qemuwrapper-cross opkg-utils-native parted-native patch-replacement-native pbzip2-native pigz-native
    qemu-helper-native qemu-system-native qemuwrapper-cross quilt-native squashfs-tools-native syslinux syslinux-native systemd-boot
    systemd-boot-native tar-replacement-native update-rc.d-native virtual/compilerlibs virtual/kernel virtual/libc
    virtual/update-alternatives-native virtual/x86_64-oe-linux-binutils virtual/x86_64-oe-linux-compilerlibs
    virtual/x86_64-oe-linux-g++ virtual/x86_64-oe-linux-gcc wic-native xz-native zstd-native
"""
_PSEUDO_LIBRARIES = "/usr/lib/x86_64-linux-gnu/pseudo"

_LAYER_CONF = """\
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes-*/*/*.bb"
BBFILE_COLLECTIONS += "rig"
BBFILE_PATTERN_rig := "^${LAYERDIR}/"
BBFILE_PRIORITY_rig = "9"
LAYERSERIES_COMPAT_rig = "scarthgap whinlatter wrynose blacksail"
LAYERDEPENDS_rig = "core"
BBFILES_DYNAMIC += "shiplap-gateway:${LAYERDIR}/dynamic/*.bbappend"
"""
_SHIM = """\
SUMMARY = "This system's own"
LICENSE = "MIT"
inherit python3-dir native
INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
"""
_APT_CONF = """\
Dir::State "#APTCONF#/state/";
Dir::State::Lists "#APTCONF#/lists/";
Dir::State::status "#ROOTFS#/var/lib/dpkg/status";
Dir::Cache "${STAGING_DIR_NATIVE}${datadir_native}/apt-cache/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc "#APTCONF#/";
Dir::Log "${STAGING_DIR_NATIVE}${datadir_native}/apt-cache/";
Dir::Bin::methods "/usr/lib/apt/methods";
APT
{
  Architecture "i586";
};
APT::Immediate-Configure "false";
APT::Get::Assume-Yes "true";
APT::Sandbox::User "";
Acquire::AllowInsecureRepositories "true";
DPkg::Options {"--root=#ROOTFS#";"--admindir=#ROOTFS#/var/lib/dpkg";"--force-all";"--no-force-overwrite";"--no-debsig";"--log=/dev/null"};
"""
_SHIMS = {
    "pseudo-native": 'PROVIDES += "virtual/fakeroot-native"\ndo_install[noexec] = "1"\n',
    "apt-native": f"""\
PROVIDES += "dpkg-native"
do_install() {{
    install -d ${{D}}${{sysconfdir}}/apt ${{D}}${{datadir}}/apt-cache/archives/partial
    touch ${{D}}${{datadir}}/apt-cache/archives/partial/.keep
    cat > ${{D}}${{sysconfdir}}/apt/apt.conf.sample <<END
{_APT_CONF}END
}}
""",
    "rpm-native": """\
PROVIDES += "dwarfsrcfiles-native"
do_install() {
    install -d ${D}${libdir}/rpm ${D}${bindir}
    printf '#!/bin/sh\\nunset RPM_CONFIGDIR RPM_ETCCONFIGDIR\\nexec /usr/lib/rpm/rpmdeps "$@"\\n' > ${D}${libdir}/rpm/rpmdeps
    printf '#!/bin/sh\\nexit 0\\n' > ${D}${bindir}/dwarfsrcfiles
    chmod 0755 ${D}${libdir}/rpm/rpmdeps ${D}${bindir}/dwarfsrcfiles
}
""",
    "rig-python-native": """\
PROVIDES += "python3-native python3-build-native python3-installer-native python3-hatchling-native"
RPROVIDES:${PN} = "python3-native python3-pyyaml-native python3-libarchive-c-native"
do_install() {
    install -d ${D}${PYTHON_SITEPACKAGES_DIR}
    touch ${D}${PYTHON_SITEPACKAGES_DIR}/rig
}
""",
}
_SDK_SHIM = """\
SUMMARY = "What tasks of an SDK and shiplap for the target ask for"
LICENSE = "MIT"
inherit allarch
INHIBIT_DEFAULT_DEPS = "1"
PROVIDES += "meta-environment-extsdk-${MACHINE} python3"
RPROVIDES:${PN} = "meta-environment-extsdk-${MACHINE} python3-core python3-modules python3-pyyaml python3-libarchive-c"
"""
# The generated image recipe, with our packages alone.
_IMAGE_APPEND = """\
IMAGE_INSTALL = "gateway-store"
PACKAGE_INSTALL = "gateway-store"
IMAGE_FSTYPES = "${RIG_FSTYPES}"
IMAGE_LINGUAS = ""
DEPENDS = ""
KERNELDEPMODDEPEND = ""
LDCONFIGDEPEND = ""
EXTRA_IMAGEDEPENDS = ""
ROOTFS_BOOTSTRAP_INSTALL = ""
WKS_FILE_DEPENDS = ""
TOOLCHAIN_HOST_TASK = ""
TOOLCHAIN_HOST_TASK_ESDK = ""
TOOLCHAIN_TARGET_TASK = ""
deltask do_populate_sdk
deltask do_populate_sdk_ext
"""
# OE's Python has modules beside the scripts of a sysroot, and an `installer` that knows --interpreter. This one does as if.
_NATIVE_PYTHON = """\
#!/bin/sh
case ${{1:-}} in */bin/*.real) PYTHONPATH=$(echo "${{1%/bin/*}}"/lib/python3.*/site-packages | tr ' ' ':'); export PYTHONPATH ;; esac
if [ "${{1:-}} ${{2:-}}" = "-m build" ]; then shift 2; exec {folder}/pyproject-build "$@"; fi
if [ "${{1:-}} ${{2:-}}" = "-m installer" ]; then shift 2; set -- {folder}/install_wheel.py "$@"; fi
exec {python} "$@"
"""
_BUILD_WHEEL = """\
#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" != --outdir ] || folder=$2; shift; done
cd "$1" && exec {python} -c 'import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])' "$folder"
"""
_INSTALL_WHEEL = """\
import argparse, pathlib, sys, zipfile
parser = argparse.ArgumentParser()
for name in ("--compile-bytecode", "--interpreter", "--prefix", "--destdir"):
    parser.add_argument(name)
parser.add_argument("wheel")
given = parser.parse_args()
# scarthgap lets the sysroot's Python know its own prefix.
prefix = pathlib.Path(given.destdir + (given.prefix or str(pathlib.Path(given.destdir).parent / "recipe-sysroot-native/usr")))
modules = prefix / ("lib/python%d.%d/site-packages" % sys.version_info[:2])
with zipfile.ZipFile(given.wheel) as wheel:
    wheel.extractall(modules)
(prefix / "bin").mkdir(parents=True, exist_ok=True)
script = prefix / "bin/shiplap"
script.write_text("#!%s\\nimport sys\\nfrom shiplap.cli.main import main\\nsys.exit(main())\\n" % given.interpreter)
script.chmod(0o755)
"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """``core`` and ``bitbake``: the two checkouts. ``series``: what OE-Core calls itself."""

    core: Path
    bitbake: Path
    series: str


def checkout() -> Checkout:
    """The one that the environment names; skips, or fails where ``oe`` is demanded."""
    named = [os.environ.get(name) for name in ("SHIPLAP_OE_CORE", "SHIPLAP_BITBAKE")]
    if not all(named):
        missing("oe", "SHIPLAP_OE_CORE and SHIPLAP_BITBAKE name no checkouts")
    core, bitbake = (Path(one or "").resolve() for one in named)
    for path in (core / "meta/conf/layer.conf", bitbake / "bin/bitbake"):
        if not path.is_file():
            missing("oe", f"there is no {path}")
    if "en_US.utf8" not in subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout:
        missing("oe", "bitbake wants the locale en_US.UTF-8")
    for program in [*_HOST_PROGRAMS.split(), "pseudo", "chrpath", "diffstat", "gawk", "lz4c", "rpcgen", "cpio", "file", "g++"]:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None and program not in (
            "nativepython3",
            "pyproject-build",
        ):
            missing("oe", f"{program} is not installed")
    found = re.search(r'LAYERSERIES_COMPAT_core = "(\S+)', (core / "meta/conf/layer.conf").read_text())
    assert found is not None
    return Checkout(core, bitbake, found[1])


@dataclass(slots=True)
class Rig:
    """Build folders below ``folder``, for ``layer``; bitbake refuses root, so nobody owns them then. ``settings``: further local.conf."""

    checkout: Checkout
    folder: Path
    layer: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rig, programs = self.folder / "rig", self.folder / "bin"
        texts = {rig / f"recipes-shim/shims/{name}_1.0.bb": _SHIM + text for name, text in _SHIMS.items()}
        texts |= {
            rig / "conf/layer.conf": _LAYER_CONF,
            rig / "recipes-shim/shims/rig-sdk_1.0.bb": _SDK_SHIM,
            rig / "dynamic/gateway-image.bbappend": _IMAGE_APPEND,
            programs / "nativepython3": _NATIVE_PYTHON.format(folder=programs, python=sys.executable),
            programs / "pyproject-build": _BUILD_WHEEL.format(python=sys.executable),
            programs / "install_wheel.py": _INSTALL_WHEEL,
        }
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if path.parent == programs else 0o644)
        (self.folder / "home").mkdir(exist_ok=True)
        self._own(self.folder / "home")

    def build(self, name: str, *, downloads: str = "downloads", sstate: str | None = None, layers: bool = True, **settings: str) -> Build:
        """A build folder; ``settings`` are stronger than the rig's. ``layers`` False: without the generated layer."""
        folder = self.folder / name
        (folder / "conf").mkdir(parents=True, exist_ok=True)
        state = self.folder / (sstate or f"{name}/sstate")
        for path in (self.folder / downloads, state):
            path.mkdir(exist_ok=True)
        core = self.checkout.core
        chosen = f"{core}/meta {self.folder}/rig" + (f" {self.layer}" if layers else "")
        (folder / "conf/bblayers.conf").write_text(f'BBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{chosen}"\n')
        values = {
            "MACHINE": "qemux86-64",
            "DL_DIR": str(self.folder / downloads),
            "SSTATE_DIR": str(state),
            "BB_HASHSERVE_DB_DIR": str(state),
            "TMPDIR": str(folder / "tmp"),
            "BBMASK": f"{core}/meta/recipes-",
            "PACKAGE_CLASSES": "package_deb",
            "RIG_FSTYPES": "squashfs tar squashfs.shiplapverity",
            "BB_NUMBER_THREADS": "2",
            "PARALLEL_MAKE": "-j 2",
            "CONNECTIVITY_CHECK_URIS": "",
            "FAKEROOTCMD": "/usr/bin/pseudo",
            "PSEUDO_PREFIX": "/usr",
            "FAKEROOTBASEENV": f"PSEUDO_BINDIR=/usr/bin PSEUDO_LIBDIR={_PSEUDO_LIBRARIES} PSEUDO_PREFIX=/usr "
            "PSEUDO_IGNORE_PATHS=/usr/,/etc/,/usr/lib,/dev/,/run/ PSEUDO_DISABLED=1 PYTHONDONTWRITEBYTECODE=1",
            **self.settings,
            **settings,
        }
        if "TCLIBCAPPEND" in (core / "meta/conf/distro/defaultsetup.conf").read_text():
            values["TCLIBCAPPEND"] = ""  # else TMPDIR gets the name of the C library
        text = "".join(f'{key} = "{value}"\n' for key, value in values.items())
        text += f'HOSTTOOLS += "{_HOST_PROGRAMS}"\nASSUME_PROVIDED += "{" ".join(_PROVIDED.split())}"\n'
        text += 'INHERIT:remove = "uninative create-spdx"\nDISTRO_FEATURES:append = " systemd sysvinit usrmerge"\n'
        (folder / "conf/local.conf").write_text('CONF_VERSION = "2"\n' + text)
        for path in (folder, folder / "conf", *(folder / "conf").iterdir(), self.folder / downloads, state):
            self._own(path)
        return Build(self, folder)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, _NOBODY, _NOBODY)


@dataclass(frozen=True, slots=True)
class Build:
    """One build folder."""

    rig: Rig
    folder: Path

    def run(self, *words: str, check: bool = True, **options: Any) -> str:
        """What ``bitbake`` or a script of OE-Core says; fails with all of it when that fails."""
        tools = self.rig.checkout
        path = f"{tools.bitbake}/bin:{tools.core}/scripts:{self.rig.folder}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        home = str(self.rig.folder / "home")
        env = {
            "HOME": home,
            "USER": "nobody",
            "LC_ALL": "en_US.UTF-8",
            "PATH": path,
            "BUILDDIR": str(self.folder),
            "BBPATH": str(self.folder),
        }
        user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            words, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **user, **options
        )
        assert (done.returncode == 0) == check, done.stdout[-6000:]
        return done.stdout

    @property
    def deployed(self) -> Path:
        return self.folder / "tmp/deploy/images/qemux86-64"

    def image(self, kind: str) -> Path:
        return self.deployed / f"gateway-image-qemux86-64.rootfs.{kind}"


def rerun_tasks(said: str) -> int:
    """How many tasks bitbake had to run."""
    found = re.search(r"Attempted (\d+) tasks of which (\d+) didn't need to be rerun", said)
    assert found is not None, said[-3000:]
    return int(found[1]) - int(found[2])
