"""The package's Makefile, in the conventions of OpenWrt's packages feed."""

from __future__ import annotations

import re
import textwrap

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.openwrt.fitting import ARCHITECTURES
from shiplap.adapters.openwrt.kconfig import has_tree, kernel_needs
from shiplap.adapters.preparing import GenerateRefused
from shiplap.adapters.template import fill, read_template
from shiplap.core.lock.model import LockedImage

KIT_LICENSE = "MIT"
_SPDX_WORD = re.compile(r"[A-Za-z0-9.+:-]+")
_OPERATORS = frozenset({"AND", "OR", "WITH"})
_ENGINE_STOP = "\t/etc/init.d/dockerd stop\n"
_ENGINE_START = "\t/etc/init.d/dockerd start\n"
# OpenWrt has no /run. The file of this name in /etc/containers is the package podman's.
_STORAGE = """\
	$(INSTALL_DATA) $(KIT)/etc/containers/storage.conf $(1)/etc/shiplap/storage.conf
	$(SED) 's|"/run/|"/var/run/|' $(1)/etc/shiplap/storage.conf
"""
_RESET = """\
	[ "$$PKG_UPGRADE" = 1 ] || /usr/sbin/shiplap-target reset
"""
_REMOVE = """\
	[ "$$PKG_UPGRADE" = 1 ] || @ENGINE@ ps -aq --filter label=io.shiplap.definition | while read -r container; do
		@ENGINE@ rm -f "$$container" </dev/null
	done
"""


def makefile(config: AdapterConfig) -> str:
    """The package's Makefile. Raises GenerateRefused."""
    engine = config.manifest.engine
    is_docker = engine == "docker"
    values = {
        "NAME": config.name,
        "VERSION": config.version,
        "SOURCE": _source(config),
        "MAINTAINER": config.maintainer,
        "LICENSE": " ".join(license_words(config)),
        "CONFIG_DEPENDS": _config_depends(config),
        "FETCH": "" if config.prebuilt else _fetch(config),
        "DEPENDS": " ".join(dependencies(config)),
        "DESCRIPTION": _description(config),
        "ARTIFACTS": "" if config.prebuilt else "/out",
        "PREPARE": read_template("openwrt", "prebuilt.mk" if config.prebuilt else "hostcommand.prepare.mk"),
        "COMPILE": "define Build/Compile\nendef\n" if config.prebuilt else read_template("openwrt", "hostcommand.compile.mk"),
        "INSTALL": _install(config),
        "STOP_ENGINE": _ENGINE_STOP if is_docker else "",
        "START_ENGINE": _ENGINE_START if is_docker else "",
        "REMOVE_CONTAINERS": fill(_REMOVE, {"ENGINE": engine}),
        "RESET": _RESET if is_docker and config.manifest.mode == "store" else "",
    }
    return fill(read_template("openwrt", "Makefile"), values)


def license_words(config: AdapterConfig) -> list[str]:
    """What PKG_LICENSE holds: a list of SPDX identifiers, sorted. The expressions themselves stand in LICENSES."""
    words = {KIT_LICENSE}
    for image in config.images:
        found = _SPDX_WORD.findall(image.license)
        words |= {word for at, word in enumerate(found) if word not in _OPERATORS and (at == 0 or found[at - 1] != "WITH")}
    return sorted(words)


def dependencies(config: AdapterConfig) -> list[str]:
    """The words of DEPENDS: the architecture, the engine, kernel symbols and modules, programs of the target kit."""
    manifest = config.manifest
    words = [f"@{ARCHITECTURES[config.platform.architecture]}"]
    needs = kernel_needs(config)
    if needs:
        words.append("@!IN_SDK")
    words += ["+dockerd", "+docker"] if manifest.engine == "docker" else ["+podman"]
    if manifest.mode == "store":
        words.append("+kmod-loop")
    elif config.artifact.endswith(".zst"):
        words.append("+zstd")
    # `stat`: BusyBox has it, but OpenWrt's is built without.
    if manifest.device.data_root.persistence == "persistent" or manifest.driver == "vfs":
        words.append("+coreutils-stat")
    if has_tree(config):
        words += [f"+{config.symbol}_CHECK_VERITY:{name}" for name in ("veritysetup", "kmod-crypto-sha256")]
    return [*words, *(f"+@{need.symbol}" for need in needs)]


def blobs(config: AdapterConfig) -> dict[str, int]:
    """What has to be fetched: digest → size in bytes, in the lock's order."""
    found: dict[str, int] = {}
    for image in config.images:
        found |= _blobs(image.locked)
    return found


def _blobs(image: LockedImage) -> dict[str, int]:
    found = {image.config: image.config_size_bytes or 0}
    for layer in image.layers:
        if layer.blob is None:
            raise GenerateRefused(
                f"the lock does not know in which blob of a registry layer {layer.diff_id} of {image.ref} is",
                hint="lock from a registry, or build here and give --prebuilt",
            )
        found[layer.blob] = layer.size_bytes or 0
    return found


def artifact_name(config: AdapterConfig) -> str:
    """The bundle's name in dl/. With its hash: OpenWrt fails on a file of the same name and other content that lies there."""
    assert config.prebuilt is not None
    return f"{config.name}-{config.version}-{config.prebuilt.sha256[:12]}.tar"


def _source(config: AdapterConfig) -> str:
    if config.prebuilt is None:
        return ""
    site, remote = "file://$(CURDIR)/artifacts", ""
    if config.prebuilt.url is not None:
        site, _, name = config.prebuilt.url.rpartition("/")
        remote = f"PKG_SOURCE_URL_FILE:={name}\n"
    sha256 = config.prebuilt.sha256
    return f"PKG_SOURCE:=$(PKG_NAME)-$(PKG_VERSION)-{sha256[:12]}.tar\nPKG_SOURCE_URL:={site}\n{remote}PKG_HASH:={sha256}\n\n"


def _config_depends(config: AdapterConfig) -> str:
    if config.manifest.mode != "store":
        return ""
    names = ("SHA256", "VERITY", "NONE") if has_tree(config) else ("SHA256", "NONE")
    return "PKG_CONFIG_DEPENDS:= \\\n" + " \\\n".join(f"\tCONFIG_{config.symbol}_CHECK_{name}" for name in names) + "\n\n"


def _fetch(config: AdapterConfig) -> str:
    downloads = []
    source_of = {digest: image.source for image in reversed(config.images) for digest in _blobs(image.locked)}
    for digest in blobs(config):
        algorithm, _, hexadecimal = digest.partition(":")
        # OpenWrt itself compares sha256 only; shiplap proves every digest.
        sha256 = hexadecimal if algorithm == "sha256" else "skip"
        downloads.append(
            f"define Download/{config.name}-{hexadecimal[:12]}\n  FILE:={algorithm}-{hexadecimal}\n  URL:={source_of[digest]}\n"
            f"  PROTO:=shiplap\n  HASH:={sha256}\nendef\n$(eval $(call Download,{config.name}-{hexadecimal[:12]}))\n"
        )
    tool = config.host_tool
    values = {"DOWNLOADS": "\n".join(downloads), "TOOL_VERSION": tool.version, "TOOL": tool.url or f"$(CURDIR)/host/{tool.file_name}"}
    return fill(read_template("openwrt", "hostcommand.mk"), values)


def _description(config: AdapterConfig) -> str:
    names = ", ".join(image.reference.familiar for image in config.images)
    text = f"{names}: container images as a {config.manifest.engine} {config.manifest.mode}, with the services that mount and start them."
    return textwrap.indent(textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False), "  ")


def _install(config: AdapterConfig) -> str:
    is_store, name = config.manifest.mode == "store", config.symbol
    copy = f"$(INSTALL_DATA) $(ARTIFACTS)/store.verity $(1){config.manifest.store_path}/"
    tree = f"  ifeq ($(CONFIG_{name}_CHECK_VERITY),y)\n\t{copy}\n  endif\n"
    values = {
        "NAME": config.name,
        "ARTIFACT": config.artifact,
        "STORE_PATH": config.manifest.store_path,
        "TREE": tree if has_tree(config) else "",
        "STORAGE": _STORAGE if config.manifest.engine == "podman" and is_store else "",
        "SETTLE": _settle(config) if is_store else "",
        "SBOM": (
            f"  ifeq ($(CONFIG_{name}_SBOM),y)\n\t$(INSTALL_DIR) $(BIN_DIR)\n\tfor sbom in spdx cdx; do \\\n"
            f"\t\t[ ! -e $(ARTIFACTS)/sbom.$$$$sbom.json ] || \\\n"
            f"\t\t$(INSTALL_DATA) $(ARTIFACTS)/sbom.$$$$sbom.json $(BIN_DIR)/{config.name}.$$$$sbom.json || exit 1; \\\n\tdone\n  endif\n"
        ),
    }
    return fill(read_template("openwrt", "install.mk"), values)


def _settle(config: AdapterConfig) -> str:
    """store.conf as .config says, whatever the build stated: three ways, one of them is chosen."""
    name, path = config.symbol, config.manifest.store_path
    full = "full" if config.manifest.verity.check == "full" else "lazy"

    def edit(choice: str, sealed: str, root_hash: str, tree: str, check: str) -> str:
        values = (("SEALED", sealed), ("ROOT_HASH", root_hash), ("VERITY", tree), ("CHECK", check))
        # $(SED) ends with -e itself.
        rules = " \\\n\t\t-e ".join(f'"s|^{key}=.*|{key}={value}|"' for key, value in values)
        return f"  ifeq ($(CONFIG_{name}_CHECK_{choice}),y)\n\t$(SED) {rules} \\\n\t\t$(1)/etc/shiplap/store.conf\n  endif\n"

    edits = [edit("SHA256", "no", "''", "''", "sha256"), edit("NONE", "no", "''", "''", "lazy")]
    if has_tree(config):
        edits.append(edit("VERITY", "yes", "$$$$(cat $(ARTIFACTS)/store.roothash)", f"{path}/store.verity", full))
    return "".join(edits)
