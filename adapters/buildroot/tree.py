"""The BR2_EXTERNAL tree: every file of it as text."""

from __future__ import annotations

import textwrap
from importlib import resources

from shiplap.adapters.buildroot.kconfig import architectures, engines, format_symbol, sealed
from shiplap.adapters.buildroot.package import external, identity, licenses_file, makefile, next_steps, placement_symbol, site
from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.preparing import GenerateRefused
from shiplap.adapters.template import fill, read_template

PACKAGE = "package/shiplap-images"
TOOL_PACKAGE = "package/python-shiplap"
_BINDING_PACKAGE = "package/python-libarchive-c"

OLDEST = "2024.02"
"""Of the tested branches; its host Python is 3.11."""
OLDEST_PREBUILT = "2023.02"

_HELP_COLUMNS = 60
_CRYPTSETUP_NEEDS = "\n\tdepends on !BR2_STATIC_LIBS # cryptsetup\n\tdepends on BR2_TOOLCHAIN_HAS_SYNC_4 # cryptsetup"
_TOOL_ROWS = """\
| `package/python-shiplap` | the program that builds the store, for the build machine |
| `package/python-libarchive-c` | a Python library that it needs and Buildroot has not |
"""
_ROWS = """\
| `package/shiplap-images` | the images: fetched, built, installed |
| `fs/squashfs` | dm-verity for the squashfs root filesystem |
"""


def tree_files(config: AdapterConfig) -> dict[str, str]:
    """Path in the tree → text. Raises GenerateRefused."""
    if config.prebuilt is not None and config.manifest.device.placement == "tree":
        raise GenerateRefused(
            "`placement: tree` needs shiplap in Buildroot's build", hint="leave --prebuilt out, or choose `placement: file` or `partition`"
        )
    named = {"EXTERNAL": external(config)}
    files = {
        "README.md": _readme(config),
        "external.desc": fill(read_template("buildroot", "external.desc"), {**named, "NAME": config.name}),
        "external.mk": fill(read_template("buildroot", "external.mk"), named),
        f"{PACKAGE}/Config.in": _config_in(config),
        f"{PACKAGE}/shiplap-images.mk": makefile(config),
        f"{PACKAGE}/image-licenses.txt": licenses_file(config),
        f"{PACKAGE}/init-files": read_template("buildroot", "init-files"),
        "fs/squashfs/Config.in": _squashfs_config_in(config),
        "fs/squashfs/squashfs.mk": _squashfs_makefile(config),
    }
    if config.prebuilt is None or config.manifest.device.placement == "partition":
        files[f"{PACKAGE}/genimage.cfg.in"] = _genimage(config)
    files |= _host_files(config) if config.prebuilt is None else _prebuilt_files(config)
    return files


def _host_files(config: AdapterConfig) -> dict[str, str]:
    tool = config.host_tool
    license_text = (resources.files("shiplap.adapters") / "packaging" / "LICENSE").read_text(encoding="utf-8")
    made = {"VERSION": tool.version, "FILE": tool.file_name, **site(tool.url, tool.file_name, "PYTHON_SHIPLAP", external(config))}
    hashes = {"SHA256": tool.sha256, "FILE": tool.file_name, "LICENSE_SHA256": identity(license_text)}
    return {
        "Config.in": fill(read_template("buildroot", "Config.in"), {"EXTERNAL": external(config)}),
        f"{TOOL_PACKAGE}/Config.in.host": read_template("buildroot", "python-shiplap.Config.in.host"),
        f"{TOOL_PACKAGE}/python-shiplap.mk": fill(read_template("buildroot", "python-shiplap.mk"), made),
        f"{TOOL_PACKAGE}/python-shiplap.hash": fill(read_template("buildroot", "python-shiplap.hash"), hashes),
        f"{_BINDING_PACKAGE}/python-libarchive-c.mk": read_template("buildroot", "python-libarchive-c.mk"),
        f"{_BINDING_PACKAGE}/python-libarchive-c.hash": read_template("buildroot", "python-libarchive-c.hash"),
        f"{PACKAGE}/pseudo-file.py": read_template("buildroot", "pseudo-file.in"),
        f"{PACKAGE}/shiplap.yaml": config.manifest_text,
        f"{PACKAGE}/shiplap.lock.yaml": config.lock_text,
    }


def _prebuilt_files(config: AdapterConfig) -> dict[str, str]:
    prebuilt = config.prebuilt
    assert prebuilt is not None
    lines = [line for line in read_template("buildroot", "Config.in").splitlines(keepends=True) if "python-shiplap" not in line]
    return {
        "Config.in": fill("".join(lines), {"EXTERNAL": external(config)}),
        f"{PACKAGE}/shiplap-images.hash": f"# Written by `shiplap generate`\nsha256  {prebuilt.sha256}  {prebuilt.file_name}\n",
        "fs/squashfs/verity-format": read_template("buildroot", "verity-format"),
    }


def _config_in(config: AdapterConfig) -> str:
    selects = ["BR2_PACKAGE_DOCKER_CLI if BR2_PACKAGE_DOCKER_ENGINE # runtime"]
    if config.prebuilt is None:
        selects.append("BR2_PACKAGE_HOST_PYTHON_SHIPLAP")
    if sealed(config):
        selects.insert(0, "BR2_PACKAGE_CRYPTSETUP # runtime")
    options = "" if config.prebuilt is not None else _options(config)
    maximum = read_template("buildroot", "shiplap-images.max-size.in")
    words = {"docker": "docker-engine", "podman": "podman"}
    values = {
        "ARCHITECTURES": architectures(config.platform),
        "ENGINES": engines(config),
        "ENGINE_WORDS": "docker-engine or podman" if config.prebuilt is None else words[config.manifest.engine],
        # What docker-engine asks for besides is cryptsetup's, too.
        "VERITYSETUP": _CRYPTSETUP_NEEDS if sealed(config) else "",
        "SELECTS": "".join(f"\n\tselect {one}" for one in sorted(selects)),
        "IMAGES": "".join(f"\n\t  {line}" for line in _image_lines(config)) + "\n",
        "OPTIONS": options + maximum,
    }
    return fill(read_template("buildroot", "shiplap-images.Config.in"), values)


def _image_lines(config: AdapterConfig) -> list[str]:
    """The images' names in the width that check-package allows help texts."""
    return [line for image in config.images for line in textwrap.wrap(image.reference.familiar, _HELP_COLUMNS, break_on_hyphens=False)]


def _options(config: AdapterConfig) -> str:
    values = {
        "EXTERNAL": external(config),
        "FORMAT": format_symbol(config),
        "PLACEMENT": placement_symbol(config),
        "STORE_PATH": config.manifest.store_path,
    }
    return fill(read_template("buildroot", "shiplap-images.options.in"), values) + "\n"


def _genimage(config: AdapterConfig) -> str:
    values = {"ARTIFACT": config.artifact, "TREE": read_template("buildroot", "genimage.tree.cfg") if sealed(config) else ""}
    return fill(read_template("buildroot", "genimage.cfg"), values).rstrip("\n") + "\n"


def _squashfs_config_in(config: AdapterConfig) -> str:
    if config.prebuilt is None:
        needs = "\n\tselect BR2_PACKAGE_HOST_PYTHON_SHIPLAP"
    else:
        needs = "\n\tdepends on BR2_PACKAGE_SHIPLAP_IMAGES\n\tselect BR2_PACKAGE_HOST_CRYPTSETUP"
    return fill(read_template("buildroot", "squashfs.Config.in"), {"NEEDS": needs})


def _squashfs_makefile(config: AdapterConfig) -> str:
    if config.prebuilt is None:
        tree, formatting = read_template("buildroot", "squashfs.tree.mk"), read_template("buildroot", "squashfs.format.mk")
    else:
        tree, formatting = "", fill(read_template("buildroot", "squashfs.format-prebuilt.mk"), {"EXTERNAL": external(config)})
    values = {"TREE": tree.rstrip("\n") + "\n" if tree else "", "FORMAT": formatting.rstrip("\n")}
    return fill(read_template("buildroot", "squashfs.mk"), values)


def _readme(config: AdapterConfig) -> str:
    values = {
        "NAME": config.name,
        "ROWS": _ROWS if config.prebuilt is not None else _ROWS + _TOOL_ROWS,
        "OLDEST": OLDEST if config.prebuilt is None else OLDEST_PREBUILT,
        "IMAGES": "\n".join(f"- {image.reference} `{image.locked.config}`, {image.license}" for image in config.images),
        "STEPS": next_steps(config),
        "MAINTAINER": config.maintainer,
    }
    return fill(read_template("buildroot", "README.md"), values)
