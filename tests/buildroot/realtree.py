"""A real Buildroot that compiles next to nothing: every package but ours is a small source tree that installs this system's programs.

Buildroot's own rules run: Kconfig, dependencies, download, extract, the steps of each package, per-package directories, target-finalize,
fakeroot, mksquashfs, legal-info. Packages become ours through ``<PKG>_OVERRIDE_SRCDIR``, and their commands through an external tree
that is read last. Nothing of this is generated for users.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from requirement import SEARCH_PATH

# Real ones: ours, what is Buildroot's own source, and what has none.
_OURS = re.compile(
    r"shiplap-images|host-python-shiplap|host-python-libarchive-c|host-makedevs|(host-)?skeleton.*|rootfs-.*|toolchain(-external)?"
)
_TOOLCHAIN = "toolchain-external-custom"
_HOOKS = ("RSYNC", "PATCH", "CONFIGURE", "BUILD", "INSTALL", "INSTALL_TARGET", "INSTALL_STAGING", "INSTALL_IMAGES")
_STEPS = (
    "CONFIGURE_CMDS", "BUILD_CMDS", "INSTALL_STAGING_CMDS", "INSTALL_IMAGES_CMDS", "INSTALL_INIT_SYSV", "INSTALL_INIT_SYSTEMD",
    "TARGET_FINALIZE_HOOKS", "ROOTFS_PRE_CMD_HOOKS", "PERMISSIONS", "DEVICES", "LICENSE_FILES", "CONFIG_SCRIPTS",
)  # fmt: skip
_PROGRAMS = {"fakeroot": ("fakeroot",), "squashfs": ("mksquashfs", "unsquashfs"), "tar": ("tar",)}
_PYTHON_PACKAGES = ("build", "installer", "hatchling", "setuptools", "wheel", "pyyaml")
_CROSS = ("ar", "as", "gcc", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip")
_LIBRARIES = {"libarchive": ("libarchive.so.13", "libarchive.so"), "zstd": ("libzstd.so.1",), "lz4": ("liblz4.so.1",)}
CONFIG = {
    "BR2_x86_64": "y",
    "BR2_TOOLCHAIN_EXTERNAL": "y",
    "BR2_TOOLCHAIN_EXTERNAL_CUSTOM": "y",
    "BR2_TOOLCHAIN_EXTERNAL_PREINSTALLED": "y",
    "BR2_TOOLCHAIN_EXTERNAL_PATH": '"/usr"',
    "BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX": '"x86_64-linux-gnu"',
    "BR2_TOOLCHAIN_EXTERNAL_GCC_12": "y",
    "BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_1": "y",
    "BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC": "y",
    "BR2_INIT_NONE": "y",
    "BR2_PACKAGE_BUSYBOX": "n",
    "BR2_PACKAGE_DOCKER_ENGINE": "y",
    "BR2_PACKAGE_SHIPLAP_IMAGES": "y",
    "BR2_TARGET_ROOTFS_SQUASHFS": "y",
    "BR2_TARGET_ROOTFS_SQUASHFS_VERITY": "y",
    "BR2_TARGET_ROOTFS_TAR": "n",
}


@dataclass
class RealTree:
    """``checkout``: of Buildroot; ``external``: the generated tree; ``folder``: everything else, which ``user`` can write to.

    ``target``: files of the root file system, path → (mode, content) or a link's target; they come with the engine's package.
    """

    checkout: Path
    external: Path
    folder: Path
    user: int | None = None
    target: Mapping[str, tuple[int, bytes] | str] = field(default_factory=dict)
    tools: Mapping[str, Path] = field(default_factory=dict)
    _commands: dict[str, str] = field(default_factory=dict)

    def configure(self, out: str, **symbols: str) -> Path:
        """An O= folder with a finished configuration; ``symbols`` without BR2_."""
        place = self.folder / out
        place.mkdir(parents=True, exist_ok=True)
        (place / "local.mk").unlink(missing_ok=True)
        self.choose(out, **symbols)
        self._stand_ins(out)
        return place

    def choose(self, out: str, **symbols: str) -> None:
        """The configuration alone; for one that Buildroot will refuse."""
        chosen = {**CONFIG, **{f"BR2_{name}": value for name, value in symbols.items()}}
        lines = [f"# {name} is not set" if value == "n" else f"{name}={value}" for name, value in chosen.items()]
        (self.folder / out / ".config").write_text("".join(f"{line}\n" for line in lines))
        self._give(self.folder / out)
        self.make(out, "olddefconfig")

    def make(self, out: str, *goals: str, code: int = 0, offline: bool = False, **variables: str) -> str:
        """``make GOALS``; what it said. ``offline``: in a network namespace without a way out."""
        self._empty_external()
        words = ["make", f"O={self.folder / out}", f"BR2_EXTERNAL={self.external}:{self.folder / 'stand-ins'}"]
        words += [f"{name}={value}" for name, value in variables.items()] + list(goals)
        if self.user is not None:
            words = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *words]
        if offline:
            words = ["unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)), *words]
        done = subprocess.run(words, cwd=self.checkout, env=self.environment(), capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == code, said[-6000:]
        return said if not goals or goals[0] != "show-info" else done.stdout

    def environment(self) -> dict[str, str]:
        names = ("PATH", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
        env = {name: os.environ[name] for name in names if name in os.environ}
        return {**env, "HOME": str(self.folder / "home"), "BR2_DL_DIR": str(self.folder / "dl")}

    def _give(self, *places: Path) -> None:
        if self.user is not None:
            for place in places:
                subprocess.run(["chown", "-R", f"{self.user}:{self.user}", place], check=True)

    def _empty_external(self) -> None:
        place = self.folder / "stand-ins"
        if place.exists():
            return
        place.mkdir(parents=True)
        (place / "external.desc").write_text("name: STAND_INS\n")
        (place / "Config.in").write_text("")
        (place / "external.mk").write_text("")
        for name in ("home", "dl"):
            (self.folder / name).mkdir(exist_ok=True)
            self._give(self.folder / name)

    def _stand_ins(self, out: str) -> None:
        """A source tree for each package of the configuration, and the commands that install it."""
        told = json.loads(self.make(out, "show-info"))
        names = [name for name in told if not _OURS.fullmatch(name)]
        overrides = []
        for name in sorted(names):
            if not told[name].get("downloads") and name != _TOOLCHAIN:
                continue  # Buildroot's own files: they need no stand-in
            variable, tree = name.upper().replace("-", "_"), self._tree(name)
            if name != _TOOLCHAIN:
                overrides.append(f"{variable}_OVERRIDE_SRCDIR = {tree}\n")
            # How the engine is started is Buildroot's own script.
            lines = [f"{variable}_{step} =\n" for step in _STEPS if name != "docker-engine" or "INIT" not in step]
            lines += [f"{variable}_{moment}_{step}_HOOKS =\n" for moment in ("PRE", "POST") for step in _HOOKS]
            lines.append(f"{variable}_INSTALL_CMDS = cp -a {tree}/host/. $(HOST_DIR)/\n")
            place = "host/. $(HOST_DIR)/" if name == _TOOLCHAIN else "target/. $(TARGET_DIR)/"
            lines.append(f"{variable}_INSTALL_TARGET_CMDS = cp -a {tree}/{place}\n")
            self._commands[name] = "".join(lines)
        (self.folder / out / "local.mk").write_text("".join(overrides))
        (self.folder / "stand-ins" / "external.mk").write_text("".join(self._commands.values()))

    def _tree(self, name: str) -> Path:
        raw = name.removeprefix("host-")
        tree = self.folder / "sources" / name
        if tree.exists():
            return tree
        host, target = tree / "host", tree / "target"
        for place in (host / "bin", host / "lib", target):
            place.mkdir(parents=True)
        for program in _PROGRAMS.get(raw, ()):
            _wrapper(host / "bin" / program, self._program(program))
        if raw == "cryptsetup":
            _wrapper(host / "bin" / "veritysetup", self._program("veritysetup"))
        if raw == "patchelf":
            _script(host / "bin/patchelf", ":")  # Buildroot's own one has an option more; nothing here has a path to make relative
        if raw == "mkpasswd":
            _script(host / "bin/mkpasswd", "echo x")
        if raw == _TOOLCHAIN:
            for tool in _CROSS:
                _wrapper(host / "bin" / f"x86_64-linux-gnu-{tool}", self._program(tool))
        for library in _LIBRARIES.get(raw, ()):
            (host / "lib" / library).symlink_to(library_path(library))
        if raw == "busybox":
            # Its configuration goes through Buildroot's own rules; this is where it would be built.
            (tree / "Makefile").write_text("%:\n\t@:\n.PHONY: oldconfig olddefconfig\n")
        if raw == "python3":
            self._python(host)
        if name == "docker-engine":
            _write_files(target, self.target)
        return tree

    def _program(self, name: str) -> Path:
        found = self.tools.get(name) or shutil.which(name, path=SEARCH_PATH)
        assert found, f"{name} is not installed"
        return Path(found)

    def _python(self, host: Path) -> None:
        """This system's Python, with the modules of Buildroot's host packages in the place of Buildroot's own version."""
        text = (self.checkout / "package/python3/python3.mk").read_text()
        major = re.search(r"^PYTHON3_VERSION_MAJOR = (\S+)", text, re.MULTILINE)
        assert major
        modules = f"lib/python{major[1]}/site-packages"
        base = getattr(sys, "_base_executable", sys.executable)
        _script(host / "bin/python3", f'PYTHONPATH="${{0%/*}}/../{modules}" exec {base} -s "$@"')
        (host / "bin/python").symlink_to("python3")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--target",
                host / modules,
                *_PYTHON_PACKAGES,
            ],
            check=True,
        )


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _wrapper(path: Path, program: Path) -> None:
    _script(path, f'exec {program} "$@"')


def library_path(name: str) -> Path:
    """Where this system has a shared library; a name without a number is libarchive's."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    wanted = name if name[-1].isdigit() else f"{name}.13"
    for line in listed.splitlines():
        if line.strip().startswith(f"{wanted} "):
            return Path(line.rpartition("=> ")[2])
    raise AssertionError(f"{wanted} is not installed")


def _write_files(root: Path, files: Mapping[str, tuple[int, bytes] | str]) -> None:
    for name, what in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, str):
            place.symlink_to(what)
        else:
            place.write_bytes(what[1])
            place.chmod(what[0])
