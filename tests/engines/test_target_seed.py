"""The target kit's seeding, under the shells that devices have, judged by the real engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from engines import runnable
from engines.targetkit import SHELLS, STORE, device, firmware, kit
from images import file
from layertar import build
from requirement import require

LAYERDB = "image/overlay2/layerdb/sha256"


def listing(root: Path) -> list[tuple[str, int, int, int]]:
    """Every path with its inode and times: what a write of any kind would change."""
    found = []
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        found.append((str(path.relative_to(root)), status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    return sorted(found)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_life_of_updates(shell: list[str], tmp_path: Path) -> None:
    """First boot, second boot that writes nothing, prune, tampering, update that drops an image, rollback."""
    require("docker")
    data_root = tmp_path / "data"
    base, other = (
        runnable.image("app:1"),
        ImageSpec([*runnable.image("x").layers, build([file("new", b"new\n")])], ["app:2"], config=runnable.image("x").config),
    )
    alone = ImageSpec([runnable.programs_layer()], ["alone:1"], config={"config": {"Cmd": ["/bin/ls", "/"], "Env": ["PATH=/bin"]}})
    old = firmware(tmp_path / "old", [base, alone], data_root)
    new = firmware(tmp_path / "new", [other], data_root)

    with device(tmp_path / "1", old, data_root) as engine:
        kit(engine, shell, old, "seed")
        engine.start()
        assert {one["Repository"] for one in engine.images()} == {"app", "alone"}
        assert (
            set(engine.docker("run", "--name", "mine", "--network", "none", "app:1").stdout.decode().splitlines())
            >= runnable.expected_lines()
        )
        engine.docker("tag", "app:1", "user:tag")
        engine.docker("commit", "mine", "user:commit")

    before = listing(data_root)
    with device(tmp_path / "2", old, data_root) as engine:
        said = kit(engine, shell, old, "seed")
        assert said.stderr == b""
        assert listing(data_root) == before
        engine.start()
        engine.docker("run", "--rm", "--network", "none", "user:commit")
        engine.docker("rmi", "-f", "alone:1")

    with device(tmp_path / "3", old, data_root) as engine:
        kit(engine, shell, old, "seed")
        engine.start()
        engine.docker("run", "--rm", "--network", "none", "alone:1")

    with device(tmp_path / "4", new, data_root) as engine:
        said = kit(engine, shell, new, "seed")
        assert b"is gone" not in said.stderr  # the user's own name keeps app:1's config, and app:2 ships its layers
        engine.start()
        engine.docker("run", "--rm", "--network", "none", "user:tag")
        engine.docker("run", "--rm", "--network", "none", "app:2")
        engine.docker("run", "--rm", "--network", "none", "user:commit")
        assert "alone" not in {one["Repository"] for one in engine.images()}
        engine.docker("start", "-a", "mine")

    with device(tmp_path / "5", old, data_root) as engine:
        kit(engine, shell, old, "seed")
        engine.start()
        assert {f"{one['Repository']}:{one['Tag']}" for one in engine.images()} >= {"app:1", "alone:1", "user:commit"}
        engine.docker("run", "--rm", "--network", "none", "alone:1")
        engine.docker("run", "--rm", "--network", "none", "app:1")


@pytest.mark.parametrize("shell", SHELLS[:1], ids=" ".join)
def test_a_user_s_image_on_a_layer_that_goes_is_taken_away_whole_and_can_come_again(shell: list[str], tmp_path: Path) -> None:
    """The engine would list it, could not run it, and would say "exists" to whoever brings its layers."""
    require("docker")
    data_root = tmp_path / "data"
    base = runnable.image("app:1")
    old = firmware(tmp_path / "old", [base], data_root)
    new = firmware(tmp_path / "new", [ImageSpec([build([file("other", b"other")])], ["other:1"])], data_root)
    with device(tmp_path / "1", old, data_root) as engine:
        kit(engine, shell, old, "seed")
        engine.start()
        engine.docker(
            "run",
            "--name",
            "mine",
            "--network",
            "none",
            "--user",
            "0",
            "--volume",
            "kept:/kept",
            "app:1",
            "/bin/sh",
            "-c",
            "echo 1 > /kept/it",
        )
        engine.docker("commit", "mine", "user:commit")
        engine.docker("save", "-o", str(tmp_path / "user.tar"), "user:commit")
    with device(tmp_path / "2", new, data_root) as engine:
        said = kit(engine, shell, new, "seed").stderr.decode()
        assert "image user:commit is gone" in said
        assert "goes with it; pull its image again" in said
        assert "was made of an image that went with another firmware" in said
        engine.start()
        assert {one["Repository"] for one in engine.images()} == {"other"}
        engine.docker("load", "-i", str(tmp_path / "user.tar"))
        done = engine.docker("run", "--rm", "--network", "none", "--volume", "kept:/kept", "user:commit", "/bin/cat", "/kept/it")
        assert done.stdout == b"1\n"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_what_was_tampered_with_on_the_data_partition_is_repaired_and_told(shell: list[str], tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    made = firmware(tmp_path / "made", [runnable.image("app:1")], data_root)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, shell, made, "seed")
        whole = {(path, path_kind(data_root / path)) for path, *_ in listing(data_root)}
        layers = sorted(path.name for path in (data_root / LAYERDB).iterdir())
        outside, evil = tmp_path / "outside", tmp_path / "evil"
        outside.mkdir()
        (outside / "precious").write_text("precious")
        evil.mkdir()
        tamper(data_root, layers, outside, evil)
        said = kit(engine, shell, made, "seed").stderr.decode()
        assert said.count("repaired") >= 8, said
        assert {(path, path_kind(data_root / path)) for path, *_ in listing(data_root)} == whole
        assert [path.name for path in outside.iterdir()] == ["precious"] and not list(evil.iterdir())
        shutil.rmtree(data_root / ".shiplap")
        (data_root / ".shiplap").symlink_to(outside)
        assert b"repaired" in kit(engine, shell, made, "seed").stderr
        assert {(path, path_kind(data_root / path)) for path, *_ in listing(data_root)} == whole
        assert [path.name for path in outside.iterdir()] == ["precious"]
        assert kit(engine, shell, made, "seed").stderr == b""
        engine.start()
        said_by_it = set(engine.docker("run", "--rm", "--network", "none", "app:1").stdout.decode().splitlines())
        assert runnable.expected_lines() <= said_by_it


def path_kind(path: Path) -> str:
    return f"link to {path.readlink()}" if path.is_symlink() else "folder" if path.is_dir() else path.read_text("latin-1")


def tamper(root: Path, layers: list[str], outside: Path, evil: Path) -> None:
    """What someone with the data partition in hand may do to lead the engine to other files, or the kit to write and delete elsewhere."""
    first, second = layers[0], layers[1]
    (root / "overlay2" / first / "diff").unlink()
    (root / "overlay2" / first / "diff").symlink_to(evil)
    link = next((root / "overlay2/l").iterdir())
    link.unlink()
    link.symlink_to(evil)
    (root / "overlay2" / second / "link").write_text("A" * 26)
    (root / LAYERDB / first / "cache-id").write_text(second)
    (root / LAYERDB / first / "diff").write_text("sha256:" + "0" * 64)
    shutil.rmtree(root / LAYERDB / second)
    (root / LAYERDB / second).symlink_to(outside)
    shutil.rmtree(root / "overlay2" / second)
    (root / "overlay2" / second).symlink_to(evil)
    (root / "image/overlay2/repositories.json").unlink()
    (root / "image/overlay2/repositories.json").symlink_to(outside / "precious")
    config = next((root / "image/overlay2/imagedb/content/sha256").iterdir())
    config.unlink()
    config.mkdir()
    # A list of what to remove that leads out of the data-root.
    (root / ".shiplap/factory").write_text(
        "layer ../../../outside\nconfig ../../../../../../outside/precious\nlink ../../../outside/precious\n"
    )


@pytest.mark.parametrize("shell", SHELLS[:1], ids=" ".join)
def test_an_engine_started_after_a_refusal_finds_nothing_it_could_run(shell: list[str], tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    made = firmware(tmp_path / "made", [runnable.image("app:1")], data_root)
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, shell, made, "seed")
        engine.start()
        engine.docker("create", "--restart", "always", "--name", "old", "--network", "none", "app:1", "/bin/sleep", "100")
    made.change(STORE_ID="0" * 64)
    with device(tmp_path / "2", made, data_root) as engine:
        done = kit(engine, shell, made, "seed", check=False)
        assert done.returncode == 1
        assert b"this firmware belongs to 000" in done.stderr and b"made unusable" in done.stderr
        assert engine.run_in_namespace(["ls", "-A", str(data_root)]).stdout == b""
        assert engine.run_in_namespace(["touch", str(data_root / "x")], check=False).returncode != 0
        with pytest.raises(AssertionError, match="dockerd ended"):
            engine.start()
        again = kit(engine, shell, made, "seed", check=False)
        assert again.returncode == 1
    assert (data_root / "image").is_dir()  # nothing was taken away


REFUSED = (
    ({"SEALED": "yes", "IMAGE": "/etc/hostname"}, "has no root hash"),
    ({"SEALED": "yes", "IMAGE": "/etc/hostname", "ROOT_HASH": "ab" * 32, "VERITY": "/nowhere"}, "its hash tree /nowhere is not there"),
    ({"SEALED": "yes", "IMAGE": "PARTUUID=12345678-0000-0000-0000-000000000000", "ROOT_HASH": "ab" * 32}, "is not there"),
    ({"SEALED": ""}, "SEALED is"),
    ({"SEALED": "perhaps"}, "SEALED is"),
    ({"FORMAT": "2"}, "reads format 1"),
    ({"IMAGE": "/nowhere"}, "the store image /nowhere is not there"),
    ({"CHECK": "sha256", "IMAGE": "/etc/passwd"}, "instead of"),
    ({"CHECK": "sha256", "SHA256": "", "IMAGE": "/etc/passwd"}, "has none"),
)


def test_a_store_that_cannot_be_verified_is_never_opened(tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    made = firmware(tmp_path / "made", [ImageSpec([build([file("x", b"x")])], ["app:1"])], data_root)
    whole = made.conf.read_text()
    with device(tmp_path / "1", made, data_root) as engine:
        engine.run_in_namespace(["umount", STORE])
        data_root.joinpath("old").write_text("old")
        for values, message in REFUSED:
            made.conf.write_text(whole)
            made.change(**values)
            done = engine.run_in_namespace(
                ["dash", made.root / "usr/sbin/shiplap-target", "seed"],
                env={"SHIPLAP_CONF": str(made.conf), "SHIPLAP_LIB": str(made.root / "usr/lib/shiplap"), "DEVICE_SECONDS": "0"},
                check=False,
            )
            assert done.returncode == 1, values
            assert message in done.stderr.decode()
            assert b"no container starts" in done.stderr
            assert engine.run_in_namespace(["findmnt", STORE], check=False).returncode != 0
            assert engine.run_in_namespace(["ls", "-A", str(data_root)]).stdout == b""
            engine.run_in_namespace(["umount", str(data_root)])
        made.conf.unlink()
        assert engine.run_in_namespace(
            ["dash", made.root / "usr/sbin/shiplap-target", "seed"],
            env={"SHIPLAP_CONF": str(made.conf), "SHIPLAP_LIB": str(made.root / "usr/lib/shiplap")}, check=False,
        ).returncode  # fmt: skip
        held = engine.run_in_namespace(["findmnt", "-n", "-o", "SOURCE", "/var/lib/docker"]).stdout
        assert held == b"shiplap-refused\n"


@pytest.mark.parametrize("shell", SHELLS[:1], ids=" ".join)
def test_reset_takes_away_what_is_ours_and_leaves_volumes_and_the_user_s_images(shell: list[str], tmp_path: Path) -> None:
    require("docker")
    data_root = tmp_path / "data"
    made = firmware(tmp_path / "made", [runnable.image("app:1")], data_root)
    user = ImageSpec([build([file("mine", b"mine")])], ["user:1"])
    docker_archive(tmp_path / "user.tar", [user])
    with device(tmp_path / "1", made, data_root) as engine:
        kit(engine, shell, made, "seed")
        engine.start()
        engine.docker("load", "-i", str(tmp_path / "user.tar"))
        engine.docker("volume", "create", "kept")
        refused = kit(engine, shell, made, "reset", check=False)
        assert refused.returncode == 1 and b"stop the engine first" in refused.stderr
        again = kit(engine, shell, made, "seed")
        assert b"the engine runs" in again.stderr
        engine.stop()
        kit(engine, shell, made, "reset")
        assert not (data_root / ".shiplap").exists()
        engine.start()
        assert {one["Repository"] for one in engine.images()} == {"user"}
        assert engine.docker("volume", "ls", "-q").stdout == b"kept\n"
        engine.stop()
        kit(engine, shell, made, "seed")
        engine.start()
        assert {one["Repository"] for one in engine.images()} == {"user", "app"}
