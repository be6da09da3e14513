"""Containers as Podman's generator for systemd (Quadlet) reads them: ``/etc/containers/systemd/container-NAME.container``.

Everything that a key of Quadlet's own could say goes through ``PodmanArgs``: the keys came with different versions of Podman, the
options are the same in all, and the same words decide the definition's hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from shiplap.rootfs.target.settings import Container, TargetRefused

FOLDER = "etc/containers/systemd"
_PROGRAM = "/usr/sbin/shiplap-target"
_RESTART = {"always": "always", "unless-stopped": "always", "on-failure": "on-failure", "no": "no"}


def unit_name(container: str) -> str:
    """Without its ending; the prefix keeps a container's name apart from the system's own units."""
    return f"container-{container}"


def quadlet_file(container: Container, words: Iterable[str]) -> bytes:
    """The text of a ``.container`` file. ``words``: options of ``podman run``, the label with the definition among them."""
    options = [word for word in words if not word.startswith("--restart=")]
    restart = next((word.partition("=")[2] for word in container.options if word.startswith("--restart=")), "no")
    policy, _, tries = restart.partition(":")
    if policy not in _RESTART or tries:
        raise TargetRefused(f"container {container.name}: systemd has no restart policy {restart}")
    others = "".join(f" {unit_name(name)}.service" for name in container.after)
    lines = [
        "[Unit]",
        f"Description=Container {container.name} of this firmware",
        "Requires=shiplap-store.service shiplap-containers.service",
        f"After=shiplap-store.service shiplap-containers.service{others}",
        *([f"Wants={others[1:]}"] if others else []),
        "",
        "[Container]",
        f"ContainerName={container.name}",
        f"Image={container.image}",
        *(f"PodmanArgs={_word(option)}" for option in ["--pull=never", *options]),
        *([f"Exec={' '.join(_word(one) for one in container.args)}"] if container.args else []),
        "",
        # Podman 5.3 and newer: else the unit waits for a network that a device may never have. Older ones ignore it.
        "[Quadlet]",
        "DefaultDependencies=false",
        "",
        "[Service]",
        f"Restart={_RESTART[policy]}",
        *(
            [f"ExecStartPre={_PROGRAM} await {container.name} {' '.join(container.wait_for)}", "TimeoutStartSec=infinity"]
            if container.wait_for
            else []
        ),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return ("\n".join(lines) + "\n").encode()


def _word(text: str) -> str:
    """One word in systemd's quotes (systemd.service(5), Command lines): C escapes; % and $ are doubled, or they would mean something."""
    if "\0" in text or text in ("", ";"):
        # The generator drops what follows an empty word (5.4, 5.8), and leaves `;` bare, which ends a command.
        raise TargetRefused(f"a Quadlet unit cannot say the word {text!r:.80}", hint="leave out `target: {quadlet: true}`")
    quoted = json.dumps(text, ensure_ascii=False).replace("\\b", "\\x08").replace("\\f", "\\x0c")
    return quoted.replace("%", "%%").replace("$", "$$")
