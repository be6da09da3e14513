"""Quadlet files: whole texts, and what the real generators make of odd words."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from engines.installations import Installation, installations
from requirement import missing
from shiplap.rootfs.target.conf import labelled
from shiplap.rootfs.target.quadlet import quadlet_file
from shiplap.rootfs.target.settings import Container, TargetRefused

APP = Container("app", "sha256:" + "c" * 64, "docker.io/library/app:1")
ODD = (
    "it's", '"', "$HOME `id` $(id)", "a  b", "*", "-rf", "\\n\\", "line\nline", "ü", "!x", "~", "%h 100%", "${A}",
    "\x01\t\x7f", "a;b", "\b\f",
)  # fmt: skip

WHOLE = """\
[Unit]
Description=Container app of this firmware
Requires=shiplap-store.service shiplap-containers.service
After=shiplap-store.service shiplap-containers.service container-db.service
Wants=container-db.service

[Container]
ContainerName=app
Image=sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
PodmanArgs="--pull=never"
PodmanArgs="--label=x"
PodmanArgs="--network=none"
Exec="--save" "100%%"

[Quadlet]
DefaultDependencies=false

[Service]
Restart=always
ExecStartPre=/usr/sbin/shiplap-target await app /data/ready
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"""


def test_the_whole_file() -> None:
    options = ("--network=none", "--restart=unless-stopped")
    one = replace(APP, options=options, args=("--save", "100%"), after=("db",), wait_for=("/data/ready",))
    assert quadlet_file(one, ["--label=x", *options]).decode() == WHOLE
    plain = quadlet_file(APP, labelled(APP)).decode()
    assert "Restart=no\n" in plain and "Exec=" not in plain and "ExecStartPre" not in plain and "Wants" not in plain


@pytest.mark.parametrize("word", ["", ";", "a\0b"])
def test_a_word_that_the_generator_would_lose_is_refused(word: str) -> None:
    with pytest.raises(TargetRefused, match="cannot say the word"):
        quadlet_file(replace(APP, args=(word,)), [])


_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t", "b": "\b", "f": "\f", "r": "\r", "a": "\a", "v": "\v", "s": " "}


def words_of(line: str) -> list[str]:
    """ExecStart's words as systemd reads them (systemd.service(5)): quotes, C escapes, then %% and $$."""
    found = []
    for raw in _split(line):
        text = re.sub(r"\\(x..|.)", lambda escape: _ESCAPES.get(escape[1]) or chr(int(escape[1][1:], 16)), raw)
        found.append(text.replace("%%", "%").replace("$$", "$"))
    return found


def _split(line: str) -> list[str]:
    words, word, quoted, at = [], "", False, 0
    while at < len(line):
        one = line[at]
        if one == "\\":
            word += line[at : at + 2]
            at += 1
        elif one == '"':
            quoted = not quoted
        elif one == " " and not quoted:
            words.append(word)
            word = ""
        else:
            word += one
        at += 1
    return [*words, word]


@pytest.mark.parametrize("installation", installations(), ids=lambda one: one.name)
def test_no_word_means_anything_to_the_generator_or_to_systemd(installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("podman")
    if not (root / "usr/libexec/podman/quadlet").exists():
        missing("engines-newer", f"Podman of {root} has no Quadlet")
    one = replace(APP, options=tuple(f"--env=A{number}={word}" for number, word in enumerate(ODD)), args=ODD)
    script = """
        mkdir /tmp/q.$$ && cat > /tmp/q.$$/container-app.container
        QUADLET_UNIT_DIRS=/tmp/q.$$ /usr/libexec/podman/quadlet --dryrun; rm -r /tmp/q.$$
    """
    done = subprocess.run(["chroot", root, "sh", "-c", script], input=quadlet_file(one, one.options), capture_output=True, check=True)
    line = next(line for line in done.stdout.decode().splitlines() if line.startswith("ExecStart="))
    words = words_of(line.removeprefix("ExecStart="))
    assert tuple(words[-len(ODD) :]) == ODD
    assert [word for word in words if word.startswith("--env=")] == list(one.options)
    assert words[-len(ODD) - 1] == APP.image
