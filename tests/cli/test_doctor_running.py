"""``shiplap doctor --kernel running``: a system that runs says what it has; and what security modules ask for is told to people."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from commandline import shiplap_command
from shiplap.cli import kernel
from shiplap.cli.main import main
from shiplap.rootfs.kernelcheck import running_config

CONFIG = (
    "CONFIG_SQUASHFS=y\nCONFIG_SECURITY_SELINUX=y\nCONFIG_IMA_APPRAISE=y\nCONFIG_SECURITY_APPARMOR=y\nCONFIG_SECURITY_LOADPIN_ENFORCE=y\n"
)
RULES = {
    "SECURITY_SELINUX": ("context=system_u:object_r:container_ro_file_t:s0", "selinux-enabled"),
    "IMA_APPRAISE": ("dont_appraise fsmagic=0x73717368", "dont_appraise fsmagic=0x794c7630"),
    "SECURITY_APPARMOR": ("apparmor_parser", "apparmor=unconfined"),
    "SECURITY_LOADPIN_ENFORCE": ("load modules from the root file system only",),
}


def test_the_configuration_of_this_very_kernel_is_read_where_it_is() -> None:
    done = shiplap_command("doctor", "--json", "--kernel", "running")
    places = [place for place in running_config(os.uname().release) if os.access(place, os.R_OK)]
    if not places:
        assert done.returncode == 2 and "in none of /proc/config.gz" in done.stderr
        return
    report = json.loads(done.stdout)
    assert report["kernel"]["source"] == places[0]
    assert done.returncode == (3 if not report["ready"] else 0 if report["kernel"]["usable"] else 1)


def test_the_first_place_that_can_be_read_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "config.gz", tmp_path / "config"]
    monkeypatch.setattr(kernel, "running_config", lambda release: map(str, places))

    def source() -> str:
        main(["doctor", "--json", "--kernel", "running"])
        found: str = json.loads(capsys.readouterr().out)["kernel"]["source"]
        return found

    places[1].write_text(CONFIG)
    assert source() == str(places[1])
    places[0].write_bytes(gzip.compress(CONFIG.encode()))
    assert source() == str(places[0])
    for place in places:
        place.unlink()
    assert main(["doctor", "--kernel", "running"]) == 2
    said = capsys.readouterr().err
    assert f"in none of {places[0]}, {places[1]}" in said and "modprobe configs" in said


def test_the_release_of_the_kernel_that_runs_leads_to_its_files() -> None:
    assert list(running_config("6.1.0-9")) == ["/proc/config.gz", "/boot/config-6.1.0-9", "/lib/modules/6.1.0-9/config"]


def test_each_security_module_is_told_with_the_rule_that_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").write_text(CONFIG)
    main(["doctor", "--kernel", str(tmp_path / "config")])
    lines = capsys.readouterr().out.splitlines()
    for symbol, rules in RULES.items():
        at = next(at for at, line in enumerate(lines) if line.strip().startswith(f"CONFIG_{symbol}: "))
        for rule in rules:
            assert rule in lines[at + 1]
