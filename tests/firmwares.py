"""Ingredients of firmwares: a small base root file system, and the output folder of a build, with a target kit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from images import CAPABILITY, X, character, directory, file, hardlink, symlink
from layertar import build
from shiplap.rootfs.target.kit import target_tar
from shiplap.rootfs.target.settings import TargetSettings
from shiplap.verity.discoverable import partition_uuids
from storeimages import APP_IMAGE, EPOCH

OS_RELEASE = b'ID=base\nPRETTY_NAME="a base"\n'
BASE_ITEMS = [
    directory("./", mode=0o755, mtime=1500000000),
    directory("./usr/bin", mtime=1500000000),
    symlink("./bin", "usr/bin"),
    file("./usr/bin/sh", b"#!" * 40_000, mode=0o755, mtime=1500000001),
    file("./usr/bin/ping", b"ping", mode=0o755, pax={X + "security.capability": CAPABILITY}),
    hardlink("./bin/ash", "bin/sh", mode=0o755),
    character("./dev/console", 5, 1, mode=0o600),
    directory("./usr/lib"),
    symlink("./lib", "usr/lib"),
    file("./etc/os-release", OS_RELEASE, mtime=1500000002),
    directory("./root", mode=0o700),
]
BASE = build(BASE_ITEMS)


def store_folder(out: Path, *words: str, image: ImageSpec = APP_IMAGE, kit: bool = True, placement: str = "file", **settings: Any) -> Path:
    """A finished build of ``image``, with a target kit for ``placement``. ``settings``: of the kit."""
    out.parent.mkdir(parents=True, exist_ok=True)
    archive = docker_archive(out.parent / f"{out.name}-images.tar", [image])
    done = shiplap_command("build", f"docker-archive:{archive}", "-o", str(out), "--source-date-epoch", str(EPOCH), *words)
    assert done.returncode == 0, done.stderr
    drop_kit(out)
    if kit:
        add_kit(out, placement, **settings)
    return out


def drop_kit(out: Path) -> None:
    """Take the build's own target.tar away, as builds of other engines have none."""
    (out / "target.tar").unlink(missing_ok=True)
    sums = out / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if not line.endswith("  target.tar\n")))


def add_kit(out: Path, placement: str, **settings: Any) -> None:
    """target.tar, as `shiplap build` writes it, and its line in SHA256SUMS."""
    store = json.loads((out / "store.json").read_text())
    name = next(name for name in ("store.squashfs", "images.tar") if (out / name).exists())
    sealed = out / "store.roothash"
    uuid = partition_uuids(sealed.read_text().strip())[0] if sealed.exists() else ""
    places = {"file": f"/usr/share/shiplap/{name}", "partition": f"PARTUUID={uuid}", "tree": ""}
    where = "archive" if store["mode"] == "archive" else "image"
    data = target_tar(
        TargetSettings(
            mode=store["mode"], engine="docker", driver="overlay2", store_id="0" * 64, store_path="/usr/share/shiplap", images=(),
            **{where: places[placement], **settings},
        ),
        EPOCH,
    )  # fmt: skip
    (out / "target.tar").write_bytes(data)
    line = f"{hashlib.sha256(data).hexdigest()}  target.tar\n"
    (out / "SHA256SUMS").write_text((out / "SHA256SUMS").read_text() + line)
