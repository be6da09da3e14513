"""SWUpdate: one selection for each slot, with all images and one script, so that root and store are written together.

Names from SWUpdate's documentation of sw-description: ``images`` of type ``raw``, ``scripts`` of type ``postinstall``
(called once, after all images), ``bootenv``. U-Boot counts boots while ``upgrade_available`` is 1.
"""

from __future__ import annotations

from hashlib import sha256

from shiplap.rootfs.bootsnippets.settings import BootSettings
from shiplap.rootfs.bootsnippets.shell import SET_PARTUUID, uuid_lines


def render(settings: BootSettings) -> dict[str, str]:
    """``sw-description``, ``swupdate-switch`` (the script) and ``swupdate-health.service`` (confirms the update)."""
    script = _script(settings)
    return {
        "sw-description": _description(settings, sha256(script.encode()).hexdigest()),
        "swupdate-switch": script,
        "swupdate-health.service": _health(settings),
    }


def _description(settings: BootSettings, script_sha256: str) -> str:
    """With the sum of every file: where SWUpdate is built for signed images, it refuses a description without."""
    selections = "\n".join(_selection(settings, letter, script_sha256) for letter in "ab")
    return f"""\
# SWUpdate. Where it goes: first into the .swu, a cpio archive, before the files that it names; with sw-description.sig where SWUpdate wants
# signed ones. Installed by `swupdate -e stable,copy-b` while slot a runs. To edit: hardware-compatibility.
software =
{{
    version = "{settings.root.root_hash[:12]}";
    hardware-compatibility: [ "1.0" ];

    stable =
    {{
{selections}
    }};
}}
"""


def _selection(settings: BootSettings, letter: str, script_sha256: str) -> str:
    images = []
    for one in settings.images:
        files = ((one.image, one.role, one.image_sha256), (one.tree, f"{one.role}-verity", one.tree_sha256))
        for file, partition, digest in files:
            images.append(
                f"""\
                {{
                    filename = "{file}";
                    type = "raw";
                    device = "/dev/disk/by-partlabel/{partition}-{letter}";
                    installed-directly = true;
                    sha256 = "{digest}";
                }}"""
            )
    listed = ",\n".join(images)
    return f"""\
        copy-{letter}:
        {{
            images: (
{listed}
            );
            scripts: (
                {{
                    filename = "swupdate-switch";
                    type = "postinstall";
                    data = "{letter}";
                    sha256 = "{script_sha256}";
                }}
            );
            bootenv: (
                {{ name = "bootslot"; value = "{letter}"; }},
                {{ name = "upgrade_available"; value = "1"; }},
                {{ name = "bootcount"; value = "0"; }}
            );
        }};"""


def _script(settings: BootSettings) -> str:
    return f"""\
#!/bin/sh
# SWUpdate. Where it goes: into the .swu. Nothing to edit: its sum stands in sw-description.
# Called with the slot's letter as its last word (`data` in sw-description).
set -eu
for slot in "$@"; do :; done

{SET_PARTUUID}
{uuid_lines(settings, "", "/dev/disk/by-partlabel/")}
"""


def _health(settings: BootSettings) -> str:
    return f"""\
# SWUpdate. Where it goes: /etc/systemd/system/, enabled. Nothing to edit.
[Unit]
Description=Confirm the firmware once its containers run
After=shiplap-containers.service

[Service]
Type=oneshot
ExecStart=/usr/sbin/shiplap-target status --wait {settings.health_seconds}
ExecStart=fw_setenv upgrade_available 0
ExecStart=fw_setenv bootcount 0

[Install]
WantedBy=multi-user.target
"""
