"""The cache: what is visible under its digest is complete, and a folder that is no good is said to be so."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from cacheblobs import blob_file, content, partial_file, put, sha256
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.blobs import BlobCorrupt, SourceInvalidContent, StoredBlob, blob_path
from shiplap.core.cache import Cache, CacheUnusable, cache_folder
from shiplap.core.errors import Refused

DATA = b"layer" * 1000
DIGEST = sha256(DATA)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_is_brought_in_is_there_by_its_digest(cache: Cache) -> None:
    assert not cache.has(DIGEST)
    cache.add(DIGEST, len(DATA), [DATA[:7], DATA[7:]])
    assert cache.has(DIGEST) and cache.has(DIGEST, len(DATA)) and not cache.has(DIGEST, 5)
    assert content(cache, DIGEST, len(DATA)) == DATA
    assert blob_file(cache, DIGEST).read_bytes() == DATA
    assert list(cache.blobs()) == [(DIGEST, len(DATA))]
    assert list((cache.root / "partial").iterdir()) == []


def test_any_tool_recognises_it_as_a_cache(cache: Cache) -> None:
    """https://bford.info/cachedir/; GNU tar is one that looks."""
    put(cache, DATA)
    assert (cache.root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    packed = subprocess.run(["tar", "-c", "--exclude-caches", "-C", cache.root.parent, "cache"], capture_output=True, check=True)
    assert DATA not in packed.stdout


def test_sha512_and_empty_blobs_are_blobs(cache: Cache) -> None:
    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    cache.add(digest, None, [DATA])
    empty = put(cache, b"")
    assert content(cache, digest, len(DATA)) == DATA and content(cache, empty, 0) == b""
    assert [one for one, _ in cache.blobs()] == [empty, digest]


def test_nothing_is_made_by_looking(cache: Cache) -> None:
    assert not cache.has(DIGEST) and list(cache.blobs()) == [] and list(cache.partials()) == []
    cache.discard(DIGEST)
    with cache.files() as files:
        assert files.size_bytes(blob_path(DIGEST)) is None
        with pytest.raises(SourceInvalidContent, match="the cache has no blobs/sha256/"):
            files.slice(blob_path(DIGEST))
    assert not cache.root.exists()


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, "../../etc/passwd", "sha256:" + "0" * 63 + "/"])
def test_only_digests_are_names(cache: Cache, digest: str) -> None:
    for call in (cache.has, cache.discard, lambda one: cache.add(one, None, [])):
        with pytest.raises(CacheUnusable, match="no digest"):
            call(digest)
    with cache.files() as files:
        assert files.size_bytes(f"blobs/{digest}") is None


@pytest.mark.parametrize(
    ("size_bytes", "data", "message"),
    [
        (len(DATA), DATA[:-1], "has 4999 bytes instead of 5000"),
        (len(DATA), DATA + b"x", "has more than the 5000 bytes"),
        (len(DATA), DATA[:-1] + b"x", "a blob with the digest sha256:.* came instead of sha256:"),
        (None, b"", "came instead of"),
    ],
)
def test_wrong_bytes_never_become_visible_and_are_not_kept(cache: Cache, size_bytes: int | None, data: bytes, message: str) -> None:
    with pytest.raises(BlobCorrupt, match=message) as caught:
        cache.add(DIGEST, size_bytes, [data])
    assert str(cache.root) not in caught.value.message
    assert not cache.has(DIGEST) and list(cache.partials()) == []
    put(cache, DATA)
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_a_second_time_nothing_is_read_and_nothing_written(cache: Cache) -> None:
    put(cache, DATA)
    before = blob_file(cache, DIGEST).stat()

    def never() -> list[bytes]:
        raise AssertionError

    cache.add(DIGEST, len(DATA), (never() for _ in range(1)))  # type: ignore[misc]
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is None
    assert blob_file(cache, DIGEST).stat().st_ino == before.st_ino


# --- resuming


def test_a_broken_transfer_goes_on_where_it_broke(cache: Cache) -> None:
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None and partial.offset_bytes == 0
        partial.write(DATA[:1234])
    assert not cache.has(DIGEST) and list(cache.partials()) == [(DIGEST, 1234)]
    with Cache(cache.root).partial(DIGEST, len(DATA)) as partial:
        assert partial is not None and partial.offset_bytes == 1234
        partial.write(DATA[1234:])
        assert partial.offset_bytes == len(DATA)
        partial.finish()
    assert content(cache, DIGEST, len(DATA)) == DATA


@given(st.lists(st.binary(max_size=2000), max_size=6), st.data())
def test_however_it_is_cut_it_comes_out_whole(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        for number, piece in enumerate((*pieces, None)):
            with cache.partial(sha256(whole), data.draw(st.sampled_from([None, len(whole)]))) as partial:
                if partial is None:
                    break
                if data.draw(st.booleans()):
                    partial.restart()
                    partial.write(b"".join(pieces[:number]))
                if piece is None:
                    partial.finish()
                else:
                    partial.write(piece)
        assert content(cache, sha256(whole), len(whole)) == whole


def test_the_beginning_that_an_earlier_transfer_left_is_verified_too(cache: Cache) -> None:
    """After a power cut it can be anything: zeros, or longer than the blob."""
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None
        partial.write(DATA[:1000])
    partial_file(cache, DIGEST).write_bytes(b"\0" * 1000)
    with pytest.raises(BlobCorrupt, match="came instead of"), cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None
        partial.write(DATA[1000:])
        partial.finish()
    assert list(cache.partials()) == []
    partial_file(cache, DIGEST).write_bytes(b"\0" * 6000)
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None and partial.offset_bytes == 0
        partial.write(DATA)
        partial.finish()
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_a_restart_forgets_what_was_there(cache: Cache) -> None:
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None
        partial.write(b"something else")
        partial.restart()
        assert partial.offset_bytes == 0
        partial.write(DATA)
        partial.restart()
        partial.write(DATA)
        partial.finish()
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_a_blob_is_on_the_disk_before_it_has_its_name_and_the_name_before_anybody_is_told(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, b"so that the folders are there")
    done: list[str] = []

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        done.append("fsync " + os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{cache.root}/"))

    def replace(source: str, target: str, **folders: int) -> None:
        real_replace(source, target, **folders)
        done.append(f"rename {source}")

    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    put(cache, DATA)
    partial = DIGEST.replace(":", "-")
    assert done == [f"fsync partial/{partial}", f"rename {partial}", "fsync blobs/sha256"]


# --- rot


def test_a_blob_that_rotted_is_found_when_it_is_read_and_the_message_says_how_to_heal_it(cache: Cache) -> None:
    put(cache, DATA)
    with blob_file(cache, DIGEST).open("r+b") as file:
        file.write(b"L")
    assert cache.has(DIGEST, len(DATA))
    with pytest.raises(BlobCorrupt, match="in the cache has the digest sha256:") as caught:
        content(cache, DIGEST, len(DATA))
    assert "cache verify --repair" in str(caught.value.hint)
    assert str(cache.root) not in caught.value.message
    cache.discard(DIGEST)
    assert not cache.has(DIGEST)
    put(cache, DATA)
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_a_blob_of_another_size_is_not_there_and_is_replaced(cache: Cache) -> None:
    """What a file system without our rename's order may leave after a power cut."""
    put(cache, DATA)
    os.truncate(blob_file(cache, DIGEST), 17)
    assert cache.has(DIGEST) and not cache.has(DIGEST, len(DATA))
    with pytest.raises(BlobCorrupt, match="has 17 bytes instead of 5000"):
        content(cache, DIGEST, len(DATA))
    put(cache, DATA)
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_what_is_open_can_be_read_to_its_end_although_it_is_discarded(cache: Cache) -> None:
    put(cache, DATA)
    with cache.files() as files:
        chunks = StoredBlob(files, blob_path(DIGEST), len(DATA), DIGEST, None)
        files.slice(blob_path(DIGEST))
        cache.discard(DIGEST)
        assert b"".join(chunks.chunks()) == DATA


def test_descriptors_are_given_back(cache: Cache) -> None:
    digests = [put(cache, bytes([number])) for number in range(20)]
    open_before = len(os.listdir("/proc/self/fd"))
    with cache.files() as files:
        for digest in digests:
            files.slice(blob_path(digest))
        assert len(os.listdir("/proc/self/fd")) == open_before + 20
        files.release(blob_path(digests[0]))
        assert len(os.listdir("/proc/self/fd")) == open_before + 19
    assert len(os.listdir("/proc/self/fd")) == open_before


# --- where it lies


def test_where_the_cache_is() -> None:
    home = {"HOME": "/home/me"}
    assert cache_folder(home) == Path("/home/me/.cache/shiplap")
    assert cache_folder({**home, "XDG_CACHE_HOME": "/x"}) == Path("/x/shiplap")
    assert cache_folder({**home, "XDG_CACHE_HOME": "relative"}) == Path("/home/me/.cache/shiplap")
    assert cache_folder({**home, "SHIPLAP_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert cache_folder({**home, "SHIPLAP_CACHE": ""}) == Path("/home/me/.cache/shiplap")
    assert cache_folder({"SHIPLAP_CACHE": "c"}) == Path.cwd() / "c"
    assert cache_folder({}).is_absolute()


def test_a_relative_cache_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Cache(Path("cache"))
    monkeypatch.chdir("/")
    put(cache, DATA)
    assert (tmp_path / "cache" / blob_path(DIGEST)).is_file()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_modes_of_the_umask_so_that_others_can_share_them(cache: Cache, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        put(cache, DATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(blob_file(cache, DIGEST).stat().st_mode) == mode
    assert stat.S_IMODE(blob_file(cache, DIGEST).parent.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((cache.root / "CACHEDIR.TAG").stat().st_mode) == mode


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    """The tag would take a home folder out of its backups; an OCI layout's blobs are not ours to collect."""
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(CacheUnusable, match="is not empty and is no cache of shiplap") as caught:
        put(Cache(tmp_path), DATA)
    assert "SHIPLAP_CACHE" in str(caught.value.hint)
    assert os.listdir(tmp_path) == ["index.json"]


def test_a_cache_stays_one_when_something_is_put_beside_the_blobs(cache: Cache) -> None:
    put(cache, DATA)
    (cache.root / "README").write_text("ours")
    put(cache, b"more")


@pytest.mark.parametrize("left", [[], ["lost+found"], ["blobs", "lock"], ["CACHEDIR.TAG.0123"]])
def test_an_empty_folder_a_new_disk_and_a_cache_without_its_tag_become_a_cache(cache: Cache, left: list[str]) -> None:
    for name in left:
        (cache.root / name).mkdir(parents=True) if name != "lock" else (cache.root / name).touch()
    put(cache, DATA)
    assert (cache.root / "CACHEDIR.TAG").is_file()


def test_a_link_to_the_cache_is_followed_and_links_inside_it_are_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    cache = Cache(tmp_path / "link")
    put(cache, DATA)
    assert (tmp_path / "elsewhere" / blob_path(DIGEST)).is_file()
    for name in ("blobs", "partial"):
        (tmp_path / "elsewhere" / name).rename(tmp_path / name)
        (tmp_path / "elsewhere" / name).symlink_to(tmp_path / name)
        with pytest.raises(CacheUnusable, match=r"cannot .* the cache"):
            put(cache, b"something new")
        (tmp_path / "elsewhere" / name).unlink()
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert put(cache, b"something new")


def plant(path: Path, kind: str, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target.with_name("made through a link"))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()


def test_another_name_of_somebodys_file_is_not_written_to(cache: Cache, tmp_path: Path) -> None:
    put(cache, b"so that it is a cache")
    (tmp_path / "victim").write_bytes(b"precious")
    os.link(tmp_path / "victim", partial_file(cache, DIGEST))
    put(cache, DATA)
    assert (tmp_path / "victim").read_bytes() == b"precious" and content(cache, DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
@pytest.mark.parametrize("place", ["blob", "partial"])
def test_what_another_user_planted_is_replaced_and_nothing_is_written_through_it(
    cache: Cache, tmp_path: Path, kind: str, place: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(DATA)
    put(cache, b"so that it is a cache")
    plant((blob_file if place == "blob" else partial_file)(cache, DIGEST), kind, victim)
    assert not cache.has(DIGEST)
    with cache.files() as files, pytest.raises(SourceInvalidContent):
        files.slice(blob_path(DIGEST))
    put(cache, DATA)
    assert not blob_file(cache, DIGEST).is_symlink() and content(cache, DIGEST, len(DATA)) == DATA
    assert victim.read_bytes() == DATA and sorted(os.listdir(tmp_path)) == ["cache", "victim"]


@pytest.mark.parametrize("place", [blob_file, partial_file])
def test_a_folder_in_a_blobs_place_is_one_clear_error(cache: Cache, tmp_path: Path, place: object) -> None:
    put(cache, b"so that it is a cache")
    plant(place(cache, DIGEST), "folder", tmp_path)  # type: ignore[operator]
    assert not cache.has(DIGEST)
    with pytest.raises(CacheUnusable):
        put(cache, DATA)


@pytest.mark.parametrize("name", ["CACHEDIR.TAG", "lock", "use"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_odd_files_of_the_caches_own_names_hang_nothing_and_are_not_written_through(
    cache: Cache, tmp_path: Path, name: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    plant(cache.root / name, kind, victim)
    try:
        put(cache, DATA)
    except Refused as error:
        assert isinstance(error, CacheUnusable)
    else:
        assert content(cache, DIGEST, len(DATA)) == DATA
    assert victim.read_bytes() == b"untouched" and sorted(os.listdir(tmp_path)) == ["cache", "victim"]
