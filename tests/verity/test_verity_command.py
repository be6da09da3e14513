"""``shiplap verity`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hashtrees import SALT, UUID, content, options, parameters, source_root, tool, tool_format
from requirement import require
from shiplap.cli.main import main
from shiplap.verity.identity import file_salt, uuid_for_salt


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data").write_bytes(content(300 * 4096))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> tuple[int, str, str]:
        code = main(["verity", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def flip(file: str, offset: int) -> None:
    data = bytearray(Path(file).read_bytes())
    data[offset] ^= 1
    Path(file).write_bytes(data)


def formatted(run, *words: object) -> dict[str, object]:
    code, out, err = run("format", "--json", *words)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_format_derives_salt_and_uuid_from_the_content(here: Path, run):
    result = formatted(run, "data", "tree")
    assert result["salt"] == file_salt(Path("data")).hex()
    assert result["uuid"] == uuid_for_salt(file_salt(Path("data")))
    assert run("verify", "data", "tree", result["root_hash"])[0] == 0


def test_a_uuid_follows_a_given_salt(here: Path, run):
    assert formatted(run, "--salt", "00ff", "data", "tree")["uuid"] == uuid_for_salt(b"\x00\xff")
    assert formatted(run, "--salt", "-", "data", "tree")["salt"] == ""
    assert formatted(run, "--salt", "00", "--uuid", UUID.upper(), "data", "tree")["uuid"] == UUID


def test_format_says_all_that_a_script_needs(here: Path, run):
    result = formatted(run, *options(parameters(hash_block_bytes=1024)), "--hash-offset=1024", "data", "tree")
    root, salt = result.pop("root_hash"), SALT.hex()
    table = f"0 2400 verity 1 DATA_DEVICE HASH_DEVICE 4096 1024 300 2 sha256 {root} {salt}"
    assert result == {
        "uuid": UUID,
        "hash_type": 1,
        "hash": "sha256",
        "salt": salt,
        "data_blocks": 300,
        "data_block_size": 4096,
        "hash_blocks": 11,
        "hash_block_size": 1024,
        "levels": 2,
        "superblock": True,
        "hash_offset": 1024,
        "tree_offset": 2048,
        "hash_end": 2048 + 11 * 1024,
        "padded_bytes": 0,
        "table": table,
        "open": f"veritysetup open --hash-offset=1024 DATA_DEVICE NAME HASH_DEVICE {root}",
        "boot": f'dm-mod.create="NAME,,0,ro,{table}"',
    }


def test_the_text_names_the_root_hash_once_more_than_the_commands_do(here: Path, run):
    root = formatted(run, "data", "tree")["root_hash"]
    code, out, _ = run("format", "data", "tree")
    assert code == 0
    assert f"Root hash:        {root}" in out.splitlines()


def test_the_root_hash_file_has_a_newline_and_both_programs_read_it(here: Path, run):
    root = formatted(run, "--root-hash-file", "root", "data", "tree")["root_hash"]
    assert Path("root").read_text() == f"{root}\n"
    assert run("verify", "--root-hash-file", "root", "data", "tree")[0] == 0
    require("veritysetup")
    assert tool("verify", "--root-hash-file=root", "data", "tree").returncode == 0


def test_what_veritysetup_formatted_is_verified(here: Path, run):
    require("veritysetup")
    root = tool_format(Path("data"), Path("tree"), parameters(hash_name="sha512"))
    assert run("verify", "data", "tree", root)[:2] == (0, "data holds: 300 data blocks are what the root hash says\n")


def test_a_bad_block_is_named_and_the_exit_code_is_1(here: Path, run):
    root = formatted(run, "data", "tree")["root_hash"]
    flip("data", 299 * 4096)
    code, out, err = run("verify", "data", "tree", root)
    assert (code, err) == (1, "")
    assert out == "data does not hold:\n  data: data block 299 (at byte 1224704) differs\n"
    flip("tree", 8192 + 4096 * 2)
    code, out, _ = run("verify", "--json", "data", "tree", root)
    assert (code, json.loads(out)) == (
        1,
        {
            "holds": False,
            "root_hash": root,
            "data_blocks": 300,
            "more": False,
            "bad_blocks": [{"kind": "hash", "level": 0, "index": 2, "offset_bytes": 16384, "missing": False}],
        },
    )
    assert run("verify", "data", "tree", root)[1].splitlines()[1] == "  tree: hash block of level 0, number 2 (at byte 16384) differs"


def test_of_many_bad_blocks_some_are_shown_and_the_others_counted(here: Path, run):
    root = formatted(run, "data", "tree")["root_hash"]
    Path("data").write_bytes(content(300 * 4096, seed=2))
    lines = run("verify", "data", "tree", root)[1].splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 290 more"
    Path("data").write_bytes(content(2000 * 4096))
    root = formatted(run, "data", "tree")["root_hash"]
    Path("data").write_bytes(content(2000 * 4096, seed=2))
    assert run("verify", "data", "tree", root)[1].splitlines()[-1] == "  and at least 990 more"


def test_a_wrong_root_hash_is_told_apart(here: Path, run):
    formatted(run, "data", "tree")
    code, out, _ = run("verify", "data", "tree", "ab" * 32)
    assert code == 1
    assert "another root hash" in out


def test_missing_blocks_are_named(here: Path, run):
    root = formatted(run, "data", "tree")["root_hash"]
    Path("data").write_bytes(content(100 * 4096))
    code, out, _ = run("verify", "data", "tree", root)
    assert (code, out.splitlines()[1]) == (1, "  data: data block 100 (at byte 409600) and all that follow are missing")


def test_a_size_that_is_no_multiple_is_refused_and_pad_is_the_cure(here: Path, run):
    with Path("data").open("ab") as file:
        file.write(b"tail")
    code, out, err = run("format", "data", "tree")
    assert (code, out) == (2, "")
    assert "its last 4 bytes (from byte 1228800) would be unprotected" in err
    assert "--pad" in err
    assert not Path("tree").exists()
    code, out, err = run("format", "--pad", "--json", "data", "tree", "--root-hash-file=root")
    assert (code, err) == (0, '{"event": "note", "message": "data was extended with 4092 zero bytes"}\n')
    assert json.loads(out)["padded_bytes"] == 4092
    assert Path("data").read_bytes() == content(300 * 4096) + b"tail" + bytes(4092)
    assert run("verify", "data", "tree", "--root-hash-file=root")[0] == 0


def test_padding_is_taken_back_when_the_tree_cannot_be_written(here: Path, run):
    Path("data").write_bytes(b"x" * 5000)
    assert run("format", "--pad", "data", "absent/tree")[0] == 2
    assert Path("data").read_bytes() == b"x" * 5000


def test_pad_and_the_tree_go_into_one_file(here: Path, run):
    Path("data").write_bytes(b"x" * 5000)
    result = formatted(run, "-q", "--pad", "data", "data", "--hash-offset=8192")
    assert Path("data").read_bytes()[:8192] == b"x" * 5000 + bytes(3192)
    assert result["table"].split()[4:6] == ["DATA_DEVICE", "DATA_DEVICE"]
    assert run("verify", "data", "data", "--hash-offset=8192", result["root_hash"])[0] == 0
    require("veritysetup")
    assert tool("verify", "data", "data", "--hash-offset=8192", "--data-blocks=2", result["root_hash"]).returncode == 0


def test_an_empty_file_is_refused_also_with_pad(here: Path, run):
    Path("empty").touch()
    for words in (["empty"], ["--pad", "empty"]):
        code, _, err = run("format", *words, "tree")
        assert (code, err) == (2, "error: empty is empty: there is nothing to protect\n")


def test_a_tree_without_superblock_needs_its_parameters(here: Path, run):
    words = options(parameters(superblock=False, hash_name="sha512"))
    result = formatted(run, *words, "data", "tree")
    assert result["uuid"] is None
    assert run("verify", *words, "data", "tree", result["root_hash"])[0] == 0
    code, _, err = run("verify", "--no-superblock", "data", "tree", result["root_hash"])
    assert code == 2
    assert "the salt is not known" in err
    code, _, err = run("verify", "data", "tree", result["root_hash"])
    assert code == 2
    assert "--no-superblock" in err


def test_given_parameters_must_be_the_superblocks(here: Path, run):
    root = formatted(run, *options(parameters()), "data", "tree")["root_hash"]
    assert run("verify", f"--uuid={UUID}", f"--salt={SALT.hex()}", "data", "tree", root)[0] == 0
    code, _, err = run("verify", "--salt=00", "data", "tree", root)
    assert code == 2
    assert f"salt {SALT.hex()}, expected is 00" in err


def test_dump_says_what_veritysetup_dump_says(here: Path, run):
    require("veritysetup")
    formatted(run, *options(parameters(hash_name="sha1")), "--hash-offset=4096", "data", "tree")
    theirs = dict(line.split(":", 1) for line in tool("dump", "--hash-offset=4096", "tree").stdout.splitlines()[1:])
    code, out, _ = run("dump", "--hash-offset=4096", "tree")
    ours = dict(line.split(":", 1) for line in out.splitlines())
    assert code == 0
    assert {key: value.strip() for key, value in ours.items()}.items() <= {key: value.strip() for key, value in theirs.items()}.items()
    assert len(ours) == 8
    assert json.loads(run("dump", "--json", "--hash-offset=4096", "tree")[1])["hash"] == "sha1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "data", "tree"], "required: ROOT_HASH"),
        (["verify", "data", "tree", "00" * 32, "--root-hash-file=root"], "exactly one root hash"),
        (["verify", "data", "tree", "xyz"], "no sha256 root hash"),
        (["verify", "data", "absent", "00" * 32], "cannot read absent: No such file"),
        (["verify", "data", "tree", "--root-hash-file=absent"], "cannot read absent"),
        (["verify", "data", "data", "00" * 32], "no dm-verity superblock"),
        (["dump", "data"], "no dm-verity superblock"),
        (["dump", "tree", "--hash-offset=100000000"], "tree, byte 100000000: no dm-verity superblock: the file ends"),
        (["dump", "tree", "--hash-offset=9223372036854775807"], "tree"),
        (["format", "data", "data"], "--hash-offset 1228800"),
        (["format", "absent", "new"], "cannot read absent"),
        (["format", "data", "new", "--salt=abc"], "neither hex digits nor -"),
        (["format", "data", "new", "--salt=" + "00" * 257], "a salt of 257 bytes"),
        (["format", "data", "new", "--uuid=x"], "not a UUID"),
        (["format", "data", "new", "--hash=md5"], "invalid choice"),
        (["format", "data", "new", "--data-block-size=1000"], "1000 is no data block size"),
        (["format", "data", "new", "--hash-block-size=-1"], "-1"),
        (["format", "data", "new", "--hash-offset=100"], "cannot start at byte 100"),
        (["format", "data", "new", "--hash-offset=9223372036854775296"], "more than a file can hold"),
        (["format", "data", "new", "--data-blocks=301"], "has no 301 blocks"),
        (["format", "data", "new", "--pad", "--data-blocks=3"], "exclude each other"),
        (["format", "data", "new", "--jobs=0"], "at least 1"),
        (["format", "data", "new", "--root-hash-file=data"], "DATA and --root-hash-file are both data"),
        (["format", "data", "new", "--root-hash-file=new"], "HASH and --root-hash-file are both new"),
        (["format", "data", "new", "--fec-roots=2"], "--fec-roots needs --fec-device"),
        (["format", "data", "new", "--fec-device=fec", "--fec-roots=1"], "1 parity bytes are not possible"),
        (["format", "data", "new", "--fec-device=fec", "--hash-block-size=1024"], "blocks of one size"),
        ([], "ACTION"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(here: Path, run, words: list[str], said: str):
    if "--fec-device=fec" in words:
        require("veritysetup")
    formatted(run, "data", "tree")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_error_correction_repairs_what_was_flipped(here: Path, run):
    require("veritysetup")
    whole = Path("data").read_bytes()
    for place in ([], [f"--hash-offset={len(whole)}"]):
        Path("data").write_bytes(whole)
        tree = "data" if place else "tree"
        root = formatted(run, "--fec-device=fec", "--fec-roots=4", *place, "data", tree)["root_hash"]
        Path("theirs").unlink(missing_ok=True)
        salt = f"--salt={json.loads(run('dump', '--json', *place, tree)[1])['salt']}"
        Path("copy").write_bytes(whole)
        assert tool("format", salt, "--fec-device=theirs", "--fec-roots=4", "copy", "copytree").returncode == 0
        assert Path("fec").read_bytes() == Path("theirs").read_bytes()
        flip("data", 12345)
        more = ["--data-blocks=300"] if place else []
        done = tool("verify", *place, *more, "--fec-device=fec", "--fec-roots=4", "data", tree, root)
        assert "Found 1 repairable errors" in done.stderr


def test_progress_reaches_the_whole_size(here: Path, run):
    code, _, err = run("format", "--progress=json", "data", "tree")
    assert code == 0
    events = [json.loads(line) for line in err.splitlines()]
    assert any(event.get("total_bytes") == 300 * 4096 for event in events), err


def test_the_worker_is_found_beside_the_modules():
    assert Path(source_root(), "shiplap", "verity", "blocks.py").is_file()
