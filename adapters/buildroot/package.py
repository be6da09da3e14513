"""package/shiplap-images: the makefile that fetches or unpacks the images, builds and installs them."""

from __future__ import annotations

import hashlib

from shiplap.adapters.buildroot.kconfig import PLACEMENTS, format_symbol, kernel_symbols, trees
from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.licences import licence_statement
from shiplap.adapters.preparing import GenerateRefused
from shiplap.adapters.template import fill, read_template
from shiplap.core.record import ENGINE_RANGE

_OPTION = "BR2_PACKAGE_SHIPLAP_IMAGES"
_LICENSES_HEAD = """\
Licences of the container images, as shiplap.yaml states them.
The texts are in the images: /usr/share/doc, /usr/share/licenses.
"""
_SQUASHFS_TOO_OLD = "4.0% 4.1% 4.2% 4.3% 4.4% 4.5%"


def makefile(config: AdapterConfig) -> str:
    """``shiplap-images.mk``. Raises GenerateRefused for images that nobody else can fetch."""
    common = _common(config)
    prebuilt = config.prebuilt
    if prebuilt is None:
        _check_sources(config)
        values = {"FORMATS": _formats(config), "VERSION": config.version, "LEGAL": _legal(config), "COMMON": _tree() + common}
        return _joined(fill(read_template("buildroot", "shiplap-images.mk"), values))
    values = {
        "VERSION": config.version,
        "ID": prebuilt.sha256[:12],
        "FILE": prebuilt.file_name,
        "STORE_PATH": config.manifest.store_path,
        "PLACEMENT": config.manifest.device.placement,
        "LEGAL": _artifacts(config, config.artifact, trees(config)) + "\n" + _legal(config),
        "COMMON": common,
        **site(prebuilt.url, prebuilt.file_name, "SHIPLAP_IMAGES", external(config)),
    }
    return _joined(fill(read_template("buildroot", "shiplap-images.prebuilt.mk"), values))


def external(config: AdapterConfig) -> str:
    """The name of the external tree: letters, digits and underscores."""
    return f"SHIPLAP_{config.symbol}"


def site(url: str | None, file_name: str, package: str, tree: str) -> dict[str, str]:
    """Where a package's archive is: on a server, or in its own folder of the tree."""
    if url is not None:
        folder, _, name = url.rpartition("/")
        if name != file_name:
            raise GenerateRefused(f"the URL {url} ends in {name!r}: Buildroot fetches {file_name}", hint=f"write …/{file_name}")
        return {"SITE": folder, "METHOD": ""}
    folder = "package/" + package.lower().replace("_", "-")
    return {"SITE": f"$(BR2_EXTERNAL_{tree}_PATH)/{folder}", "METHOD": f"{package}_SITE_METHOD = file\n"}


def licenses_file(config: AdapterConfig) -> str:
    """What the manifest states of each image."""
    return licence_statement(config, _LICENSES_HEAD)


def next_steps(config: AdapterConfig) -> str:
    """What the user does next."""
    engine = {"docker": "BR2_PACKAGE_DOCKER_ENGINE", "podman": "BR2_PACKAGE_PODMAN"}[config.manifest.engine]
    values = {
        "ENGINE": f"{engine}=y".ljust(42),
        "FORMAT": f"The format is {_OPTION}_FORMAT_{format_symbol(config)}.\n" if config.prebuilt is None else "",
    }
    return fill(read_template("buildroot", "next-steps.txt"), values).rstrip("\n") + "\n"


def _joined(text: str) -> str:
    """Without the empty lines at the end that an empty part leaves."""
    return text.rstrip("\n") + "\n"


def _check_sources(config: AdapterConfig) -> None:
    unfit = [f"{image.reference} (from {image.source})" for image in config.images if not image.is_in_registry]
    if unfit:
        raise GenerateRefused(
            f"Buildroot cannot fetch {', '.join(unfit)}: files and engines are of one machine only",
            hint="build here and embed the result with --prebuilt, or lock from a registry",
        )


def _artifacts(config: AdapterConfig, artifact: str, beside: tuple[str, ...]) -> str:
    return f"SHIPLAP_IMAGES_ARTIFACTS = {artifact}\nSHIPLAP_IMAGES_TREES ={''.join(f' {name}' for name in beside)}"


def _formats(config: AdapterConfig) -> str:
    """For each format: the options that make it of this manifest, and the files that come out."""
    manifest = config.manifest
    image = "store.erofs" if "erofs" in manifest.outputs else "store.squashfs"
    own = manifest.mode == "store"
    beside = trees(config) if own else ("store.verity", "store.roothash")
    outputs = "" if own else " --output squashfs,verity"
    lines = []
    for word, engine, driver in (("ifeq", "podman", "overlay"), ("else ifeq", "docker", "overlay2")):
        driver = manifest.driver if manifest.engine == engine else driver
        lines.append(f"{word} ($({_OPTION}_FORMAT_STORE_{engine.upper()}),y)")
        lines.append(f"SHIPLAP_IMAGES_FORMAT_OPTS = --mode store --engine {engine} --driver {driver}{outputs}")
        lines.append(_artifacts(config, image, beside))
    suffix = config.artifact if manifest.mode == "archive" else "images.tar"
    lines += ["else", "SHIPLAP_IMAGES_FORMAT_OPTS = --mode archive --output tar"]
    lines += [_artifacts(config, suffix, ()), "endif", ""]
    return "\n".join(lines)


def _legal(config: AdapterConfig) -> str:
    """Buildroot's own fields, for `make show-info`, pkg-stats and generate-cyclonedx."""
    rows = ", \\\n".join(f"\t{image.license} ({image.reference})" for image in config.images)
    return f"SHIPLAP_IMAGES_LICENSE = \\\n{rows}\nSHIPLAP_IMAGES_LICENSE_FILES = image-licenses.txt\nSHIPLAP_IMAGES_REDISTRIBUTE = NO\n"


def _common(config: AdapterConfig) -> str:
    values = {
        "SYSTEMD": _init(config, "systemd", ("usr/lib/systemd",)),
        "SYSV": _init(config, "sysv", ("etc/init.d",)),
        "KERNEL": _kernel(config),
        "LEGAL_INFO": _legal_info(config),
        "GUARDS": _guards(config),
    }
    return fill(read_template("buildroot", "shiplap-images.common.mk"), values)


def _kernel(config: AdapterConfig) -> str:
    lines = [f"\t$(call KCONFIG_ENABLE_OPT,CONFIG_{symbol})" for symbol in kernel_symbols(config)]
    if config.prebuilt is not None:
        # Without a host package of ours this one takes what the root filesystem's hash tree needs.
        lines.append("\t$(ROOTFS_SQUASHFS_VERITY_LINUX_CONFIG_FIXUPS)")
    return "\n".join(lines)


def _init(config: AdapterConfig, name: str, members: tuple[str, ...]) -> str:
    if name not in config.manifest.device.init:
        stated = ", ".join(config.manifest.device.init)
        return f'\t@echo "shiplap-images: the manifest has files for {stated} only; add {name} to target: init" >&2; exit 1'
    return f"\t$(TAR) -xf $(@D)/out/target.tar -C $(TARGET_DIR) \\\n\t\t--keep-directory-symlink --no-same-owner {' '.join(members)}"


def _legal_info(config: AdapterConfig) -> str:
    """A row of the manifest for each image; the licences and, when the build has them, the lists of software."""
    files = "$(LICENSE_FILES_DIR_TARGET)/$(SHIPLAP_IMAGES_BASENAME_RAW)"
    lines = [f"mkdir -p {files}", f"cp $(SHIPLAP_IMAGES_PKGDIR)/image-licenses.txt {files}/"]
    lines.append(f'for file in $(wildcard $(SHIPLAP_IMAGES_DIR)/out/sbom.*); do cp "$$file" {files}/; done')
    for image in config.images:
        row = (str(image.reference), image.locked.config, image.license, "image-licenses.txt", "not saved", image.stated_source, "")
        lines.append(f"$(call legal-manifest,TARGET,{','.join(row)})")
    return "\n".join(f"\t{line}" for line in lines)


def _guards(config: AdapterConfig) -> str:
    """What no Kconfig expression can say, checked when a build begins."""
    lines = [
        "ifneq ($(filter /var /var/% /run /run/% /tmp /tmp/%,$(SHIPLAP_IMAGES_PATH)),)",
        f"$(error {_OPTION}_PATH: with systemd /var is a copy in memory, and /run and /tmp are emptied: choose another folder)",
        "endif",
        "ifeq ($(filter /%,$(SHIPLAP_IMAGES_PATH)),)",
        f"$(error {_OPTION}_PATH: write an absolute path)",
        "endif",
    ]
    if config.prebuilt is None:
        lines += [
            "ifeq ($(wildcard $(SHIPLAP_IMAGES_LOCK)),)",
            f"$(error {_OPTION}_MANIFEST: there is no lock $(SHIPLAP_IMAGES_LOCK))",
            "endif",
            *_engine_guard("docker", "DOCKER_ENGINE", f"ifeq ($({_OPTION}_FORMAT_STORE_DOCKER),y)"),
            *_engine_guard("podman", "PODMAN", f"ifeq ($({_OPTION}_FORMAT_STORE_PODMAN),y)"),
            f"ifeq ($({_OPTION}_PLACEMENT_ROOTFS_TREE),y)",
            f"ifneq ($(filter {_SQUASHFS_TOO_OLD},$(SQUASHFS_VERSION)),)",
            "$(error shiplap-images: mksquashfs $(SQUASHFS_VERSION) cannot take the unpacked store, 4.6 can: choose another placement)",
            "endif",
            "ifneq ($(filter-out rootfs-squashfs,$(TARGETS_ROOTFS)),)",
            "$(error shiplap-images: only a squashfs keeps the store unpacked; switch off $(filter-out rootfs-squashfs,$(TARGETS_ROOTFS)))",
            "endif",
            "endif",
        ]
    elif config.manifest.mode == "store":
        package = "DOCKER_ENGINE" if config.manifest.engine == "docker" else "PODMAN"
        lines += _engine_guard(config.manifest.engine, package, remedy="build with `mode: archive`")
    return "\n".join(lines)


def _engine_guard(engine: str, package: str, condition: str = "", remedy: str = "choose the archive") -> list[str]:
    """A store is read by the engines that it was tested with; an older or newer one gets the archive."""
    oldest, newest = ENGINE_RANGE[engine]["oldest"], ENGINE_RANGE[engine]["newest"]
    first, last = (int(version.partition(".")[0]) for version in (oldest, newest))
    # "custom" is what Buildroot calls a source tree of the user's own.
    majors = " ".join([*map(str, range(first, last + 1)), "custom"])
    version = f"$(patsubst v%,%,$({package}_VERSION))"
    lines = [
        f"ifeq ($(filter {majors},$(firstword $(subst ., ,{version}))),)",
        f"$(error shiplap-images: stores are tested with {engine} {oldest} to {newest}, this is {version}: {remedy})",
        "endif",
    ]
    return [condition, *lines, "endif"] if condition else lines


def _tree() -> str:
    return read_template("buildroot", "shiplap-images.tree.mk") + "\n"


def identity(text: str) -> str:
    """sha256, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def placement_symbol(config: AdapterConfig) -> str:
    """The choice that is the manifest's."""
    return PLACEMENTS[config.manifest.device.placement]
