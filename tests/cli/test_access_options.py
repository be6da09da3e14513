"""``--cache``, ``--mirror``, ``--authfile``, ``--tls-verify``, ``--cert-dir``: the same for every verb that opens sources."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from archives import docker_archive
from commandline import COMMAND, environment, nobody_can_run_it
from locks import refused, two_images
from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.arguments import Parser
from shiplap.cli.console import Console
from shiplap.core.registry.settings import RegistrySettings

NOBODY = 54321
APP, _ = two_images()


def parsed(*words: str) -> argparse.Namespace:
    parser = Parser(prog="verb")
    add_access_options(parser)
    return parser.parse_args(words)


def test_options_hold_for_every_registry_and_the_manifest_s_paths_begin_at_its_folder() -> None:
    words = ["--cache", "c", "--mirror", "one", "--mirror", "https://two"]
    words += ["--authfile", "a.json", "--cert-dir", "certs", "--tls-verify=false"]
    registries = {"registry.example": RegistrySettings(cert_dir=Path("certs"), authfile=Path("/abs/auth.json"))}
    access = access_of(parsed(*words), Console(), registries, Path("products"), offline=True)
    assert access.cache is not None and access.cache.root.name == "c"
    assert (access.offline, access.download_mirrors) == (True, ("one", "https://two"))
    assert access.default_registry == RegistrySettings(False, Path("certs"), Path("a.json"))
    assert access.registries["registry.example"] == RegistrySettings(None, Path("products/certs"), Path("/abs/auth.json"))


def test_a_mirror_that_is_no_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    access_of(parsed("--mirror", str(tmp_path), "--mirror", str(tmp_path / "typo"), "--mirror", "https://two"), Console(), {}, Path())
    assert capsys.readouterr().err == f"note: the mirror {tmp_path}/typo is no folder here, and is not asked\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), None),
        (("--tls-verify",), True),
        (("--tls-verify=true",), True),
        (("--tls-verify", "False"), False),
        (("--tls-verify=false",), False),
    ],
)
def test_tls_verify_is_written_as_for_skopeo(words: tuple[str, ...], expected: bool | None) -> None:
    assert access_of(parsed(*words), Console(), {}, Path()).default_registry.tls_verify is expected


@pytest.mark.parametrize("verb", ["build", "lock", "fetch"])
def test_a_word_that_is_neither_true_nor_false_is_refused(tmp_path: Path, verb: str) -> None:
    assert "'maybe' is neither true nor false" in refused(tmp_path, verb, "--tls-verify=maybe")


def test_a_user_without_a_home_needs_no_cache_to_build_from_files() -> None:
    if not nobody_can_run_it():
        pytest.skip("another user cannot run this checkout")
    env = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_CACHE_HOME", "SHIPLAP_CACHE")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        docker_archive(folder / "app.tar", [APP])
        argv = [*COMMAND, "build", "docker-archive:app.tar", "-o", "out"]
        who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, **who)
    assert done.returncode == 0, done.stderr
