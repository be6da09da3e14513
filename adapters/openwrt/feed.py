"""All files of the feed."""

from __future__ import annotations

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.licences import licence_statement
from shiplap.adapters.openwrt.kconfig import config_in, default_check, kernel_needs
from shiplap.adapters.openwrt.package import artifact_name, blobs, makefile
from shiplap.adapters.openwrt.uci import defaults_script
from shiplap.adapters.template import fill, read_template

_MIB = 1 << 20
_SYSTEM_MIB = 128  # kernel, base and Docker in xz, with room


def feed_files(config: AdapterConfig) -> dict[str, str]:
    """Path in the feed → text."""
    package = f"utils/{config.name}"
    files = {
        "README.md": _readme(config),
        "feeds.conf.example": _filled_with_feed("feeds.conf", config),
        "diffconfig": _diffconfig(config),
        "image/verity.mk": _filled_with_feed("verity.mk", config),
        f"{package}/Makefile": makefile(config),
        f"{package}/Config.in": config_in(config),
        f"{package}/version.date": f"{config.epoch}\n",
        f"{package}/LICENSES": _licenses(config),
        f"{package}/test.sh": fill(
            read_template("openwrt", "test.sh"),
            {"NAME": config.name, "ARTIFACT": config.artifact, "STORE_PATH": config.manifest.store_path},
        ),
        f"{package}/test-version.sh": _filled("test-version.sh", config),
        f"{package}/files/{config.name}.config": read_template("openwrt", "config.uci"),
        f"{package}/files/{config.name}.defaults": defaults_script(config),
        f"{package}/files/{config.name}.keep": "".join(f"{path}\n" for path in kept_paths(config)),
        f"{package}/files/check-size.sh": read_template("openwrt", "check-size.sh"),
    }
    if config.prebuilt is None:
        files[f"{package}/shiplap.yaml"] = config.manifest_text
        files[f"{package}/shiplap.lock.yaml"] = config.lock_text
        files[f"{package}/files/shiplap-version.sh"] = read_template("openwrt", "shiplap-version.sh")
    return files


def carried_files(config: AdapterConfig) -> dict[str, str]:
    """Archives in the feed: path → what it is."""
    package = f"utils/{config.name}"
    if config.prebuilt is not None:
        return {} if config.prebuilt.url else {f"{package}/artifacts/{artifact_name(config)}": "prebuilt"}
    return {} if config.host_tool.url else {f"{package}/host/{config.host_tool.file_name}": "host-tool"}


def kept_paths(config: AdapterConfig) -> tuple[str, ...]:
    """What a sysupgrade keeps: our configuration, and files below /etc that containers are given."""
    found = {"/etc/config/shiplap"}
    for container in config.manifest.device.containers:
        sources = [volume.partition(":")[0] for volume in container.volumes]
        found |= {path for path in [*sources, container.env_file or ""] if path.startswith("/etc/")}
    return tuple(sorted(found))


def next_steps(config: AdapterConfig) -> str:
    """What the user does next."""
    name, feed = config.name, feed_name(config)
    lines = [f"  echo 'src-cpy {feed} DIR' >> feeds.conf     # in the OpenWrt tree; not src-link, which leaves DIR in the package"]
    lines += [
        "  ./scripts/feeds update -a && ./scripts/feeds install -a",
        f"  cat feeds/{feed}/diffconfig >> .config && make defconfig",
        f"  make package/{name}/compile     # the package alone; `make` for firmware",
    ]
    if config.prebuilt is None:
        lines.insert(
            0, f"  pipx install DIR/utils/{name}/host/{config.host_tool.file_name}" if not config.host_tool.url else _tool_line(config)
        )
    elif config.prebuilt.url:
        lines.insert(0, f"  # put publish/{config.prebuilt.file_name} to {config.prebuilt.url}")
    return "\n".join(["Next:", *lines, *_kernel_note(config)])


def _tool_line(config: AdapterConfig) -> str:
    return f"  pipx install {config.host_tool.url}     # sha256 {config.host_tool.sha256}"


def _kernel_note(config: AdapterConfig) -> list[str]:
    needs = kernel_needs(config)
    if not needs:
        return []
    remedies = ", ".join(need.remedy for need in needs)
    return [
        "",
        f"This store needs a kernel with {', '.join(need.symbol for need in needs)}; the package selects that, so the SDK and an",
        f"ImageBuilder with OpenWrt's own kernels are out. For those write `squashfs: {{{remedies}}}` and generate again.",
    ]


def feed_name(config: AdapterConfig) -> str:
    """The feed's own name: scripts/feeds reads letters, digits and underscores only."""
    return config.symbol.lower()


def _filled(template: str, config: AdapterConfig) -> str:
    return fill(read_template("openwrt", template), {"NAME": config.name})


def _filled_with_feed(template: str, config: AdapterConfig) -> str:
    return fill(read_template("openwrt", template), {"NAME": config.name, "FEED": feed_name(config)})


def _readme(config: AdapterConfig) -> str:
    if config.prebuilt is not None:
        source = "The store was built beforehand; the package unpacks it and holds it against PKG_HASH."
    else:
        tool = config.host_tool.url or f"utils/{config.name}/host/{config.host_tool.file_name}"
        source = (
            f"The store is built by `shiplap` {config.host_tool.version} or newer, which the build host must have: `pipx install "
            f"{tool}`\ninstalls the one that wrote this feed. `make download` brings each "
            "blob of the lock into `dl/` as `sha256-…`; the build itself needs no network."
        )
    values = {
        "NAME": config.name,
        "FEED": feed_name(config),
        "IMAGES": "\n".join(f"- `{image.reference.familiar}`, `{image.locked.config}`, {image.license}" for image in config.images),
        "SOURCE": source,
        "KERNEL": "\n".join(_kernel_note(config)),
    }
    return fill(read_template("openwrt", "README.md"), values).rstrip("\n") + "\n"


def _licenses(config: AdapterConfig) -> str:
    return licence_statement(
        config,
        "Licences of the container images, as the manifest states them. Their texts are in the images: /usr/share/doc,\n"
        "/usr/share/licenses. The scripts of the package are shiplap's, under the MIT licence.\n",
    )


def _diffconfig(config: AdapterConfig) -> str:
    if config.prebuilt is not None:
        size_bytes = sum(file.size_bytes for file in config.prebuilt.files if file.name == config.artifact)
    else:
        size_bytes = sum(blobs(config).values())
    size_mib = -(-size_bytes // _MIB) + _SYSTEM_MIB
    lines = [
        "# Written by `shiplap generate openwrt`: append to .config, then `make defconfig`. The size is a proposal: what the store needs",
        f"# and {_SYSTEM_MIB} MiB for the rest. Devices with a fixed layout of their flash ignore it.",
        f"CONFIG_PACKAGE_{config.name}=y",
        f"CONFIG_TARGET_ROOTFS_PARTSIZE={-(-size_mib // 32) * 32}",
    ]
    if config.manifest.mode == "store":
        lines.append(f"CONFIG_{config.symbol}_CHECK_{default_check(config)}=y")
    lines += [f"CONFIG_{need.symbol}=y" for need in kernel_needs(config)]
    return "\n".join(lines) + "\n"
