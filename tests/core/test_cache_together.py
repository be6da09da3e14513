"""Several processes, killed processes, other users, full disks: the cache stays good and every error is a clear one."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cacheblobs import blob_file, child_environment, command, content, finished, partial_file, process, put, said, sha256
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache, CacheUnusable
from smalldisk import with_small_disk

DATA = os.urandom(3 << 20)
DIGEST = sha256(DATA)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# Brings sys.argv[2:] = digest, size, file in; waits after half of it for a line on its standard input.
SLOWLY = """
data = Path(sys.argv[4]).read_bytes()
with cache.partial(sys.argv[2], int(sys.argv[3])) as partial:
    if partial is None:
        print("there")
    else:
        print("from", partial.offset_bytes)
        begin = partial.offset_bytes
        partial.write(data[begin:len(data) // 2 + begin // 2])
        print("half")
        sys.stdin.readline()
        partial.write(data[partial.offset_bytes:])
        partial.finish()
        print("done")
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "source").write_bytes(DATA)
    return str(tmp_path / "source")


def test_two_processes_that_want_the_same_blob_bring_it_in_once(cache: Cache, source: str) -> None:
    first = process(SLOWLY, cache, DIGEST, str(len(DATA)), source)
    assert (said(first), said(first)) == ("from 0", "half")
    others = [process(SLOWLY, cache, DIGEST, str(len(DATA)), source) for _ in range(3)]
    assert not cache.has(DIGEST)
    assert finished(first) == "done\n"
    assert [finished(other) for other in others] == ["there\n"] * 3
    assert content(cache, DIGEST, len(DATA)) == DATA and list(cache.partials()) == []


def test_when_the_first_fails_the_one_that_waited_brings_it_in(cache: Cache, source: str) -> None:
    first = process(SLOWLY, cache, DIGEST, str(len(DATA)), source)
    assert (said(first), said(first)) == ("from 0", "half")
    second = process(SLOWLY, cache, DIGEST, str(len(DATA)), source)
    first.kill()
    first.communicate()
    assert said(second) == f"from {len(DATA) // 2}"
    assert finished(second) == "half\ndone\n"
    assert content(cache, DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_what_came_and_the_next_one_resumes(cache: Cache, source: str, how: signal.Signals) -> None:
    killed = process(SLOWLY, cache, DIGEST, str(len(DATA)), source)
    assert (said(killed), said(killed)) == ("from 0", "half")
    killed.send_signal(how)
    killed.communicate()
    assert not cache.has(DIGEST) and list(cache.partials()) == [(DIGEST, len(DATA) // 2)]
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None and partial.offset_bytes == len(DATA) // 2
        partial.write(DATA[partial.offset_bytes :])
        partial.finish()
    assert content(cache, DIGEST, len(DATA)) == DATA


def test_many_threads_and_processes_over_a_few_blobs(cache: Cache) -> None:
    program = """
import random
from concurrent.futures import ThreadPoolExecutor
def one(number):
    put(cache, bytes([number % 7]) * 50_000)
    assert cache.has(sha256(bytes([number % 7]) * 50_000), 50_000)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(one, random.Random(int(sys.argv[2])).sample(range(70), 70)))
"""
    running = [process(program, cache, str(seed)) for seed in range(3)]
    for one in running:
        finished(one)
    assert len(list(cache.blobs())) == 7 and list(cache.partials()) == []
    for number in range(7):
        assert content(cache, sha256(bytes([number]) * 50_000), 50_000)


def test_waiting_for_another_process_can_be_interrupted(cache: Cache, source: str) -> None:
    first = process(SLOWLY, cache, DIGEST, str(len(DATA)), source)
    said(first), said(first)
    second = process("print('waiting')\n" + SLOWLY, cache, DIGEST, str(len(DATA)), source)
    assert said(second) == "waiting"
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=30)
    assert second.returncode != 0
    finished(first)


def test_the_same_cache_in_two_threads_gives_every_reader_its_own_file(cache: Cache) -> None:
    digest = put(cache, DATA)
    barrier = threading.Barrier(8)

    def read() -> bool:
        barrier.wait()
        return content(cache, digest, len(DATA)) == DATA

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: read(), range(8)))


# --- disks


FILL = """
data = Path(sys.argv[2]).read_bytes()
kept = put(cache, b"here before")
try:
    put(cache, data)
except ShiplapError as error:
    print(type(error).__mro__[1].__name__, "|", error.message, "|", error.hint)
    assert cache.has(kept, 11) and not cache.has(sha256(data))
    assert [digest for digest, _ in cache.blobs()] == [kept]
    left = dict(cache.partials()).get(sha256(data), 0)
    print("left", left)
"""
NO_ROOM = "make room (`shiplap cache gc` can remove what is not needed), or set SHIPLAP_CACHE to a folder with more room"


def test_a_full_disk_is_one_clear_error_and_the_cache_stays_good(cache: Cache, source: str, tmp_path: Path) -> None:
    done = with_small_disk(cache.root, "1m", command(FILL, cache, source), child_environment())
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == f"ShiplapError | cannot write to the cache: No space left on device | {NO_ROOM}"
    assert int(second.removeprefix("left ")) > 500_000  # for a later try, or for gc


def test_a_disk_that_is_full_from_the_start_is_the_same_error(cache: Cache, source: str) -> None:
    fill = "(cache.root / 'lost+found').mkdir(); file = open(cache.root / 'lost+found/x', 'wb')\n"
    fill += "try:\n  while True: file.write(bytes(4096)); file.flush()\nexcept OSError: pass\n"
    try_it = "try: put(cache, b'x' * 9)\nexcept ShiplapError as error: print(error.message)\n"
    done = with_small_disk(cache.root, "64k", command(fill + try_it, cache), child_environment())
    assert (done.returncode, done.stdout) == (0, "cannot write to the cache: No space left on device\n")


READ_ONLY = """
import subprocess
digest = put(cache, b"here before")
root = cache.root
del cache
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
again = Cache(root)
assert again.has(digest, 11)
with again.partial(digest, 11) as partial:
    assert partial is None
from cacheblobs import content
assert content(again, digest, 11) == b"here before"
try:
    put(again, b"new")
except ShiplapError as error:
    print(error.message, "|", error.hint)
"""


def test_a_read_only_cache_can_be_read(cache: Cache) -> None:
    done = with_small_disk(cache.root, "1m", command(READ_ONLY, cache), child_environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"cannot write to the cache {cache.root}: Read-only file system | set SHIPLAP_CACHE to a folder of your own that you may write to\n"
    )


def test_a_full_disk_keeps_nobody_from_reading(cache: Cache) -> None:
    program = """
import errno
digest = put(cache, b"here before")
try:
    (cache.root / "lost+found").write_bytes(bytes(2 << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC
again = Cache(cache.root)
from cacheblobs import content
print(content(again, digest, 11).decode())
"""
    done = with_small_disk(cache.root, "1m", command(program, cache), child_environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "here before\n", "")


# --- other users


def as_user(uid: int, program: str, cache: Cache, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Another user's process; it imports what it needs before it changes its user, the checkout may be root's alone."""
    switch = f"os.umask({umask}); os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n"
    preload = "import hashlib, shiplap.core.cache.collection, shiplap.core.cache.export, shiplap.core.cache.verification, cacheblobs\n"
    return subprocess.run(
        command(preload + switch + program, cache, *arguments), env=child_environment(), capture_output=True, text=True, check=False
    )


@pytest.fixture
def common() -> Iterator[Cache]:
    """A cache below folders that everybody may enter; pytest closes its own for others whenever a session begins."""
    if os.geteuid() != 0:
        pytest.skip("only root can be several users")
    with tempfile.TemporaryDirectory(prefix="shiplap-common-") as folder:
        Path(folder).chmod(0o755)
        yield Cache(Path(folder) / "cache")


TRY = """
try: put(cache, sys.argv[2].encode())
except ShiplapError as error: print(type(error).__name__, "|", error.message, "|", error.hint)
"""


def test_another_users_cache_can_be_read_and_writing_is_refused_with_the_way_out(common: Cache) -> None:
    put(common, b"shared")
    done = as_user(65534, "from cacheblobs import content\nprint(content(cache, sha256(b'shared'), 6))\n" + TRY, common, "mine")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "b'shared'",
        f"CacheUnusable | cannot write to the cache {common.root}: Permission denied | "
        "set SHIPLAP_CACHE to a folder of your own that you may write to",
    ]


def test_a_damaged_blob_that_may_not_be_removed_is_said_to_be_damaged(common: Cache) -> None:
    assert as_user(0, "put(cache, b'shared')", common).stderr == ""
    digest = sha256(b"shared")
    blob_file(common, digest).write_bytes(b"Shared")
    program = """
from cacheblobs import content
from shiplap.core.cache.collection import Policy, collect
from shiplap.core.cache.verification import verify_all
digest = sys.argv[2]
print(cache.discard(digest), len(list(cache.blobs())))
for action in (lambda: verify_all(cache, repair=True), lambda: collect(cache, Policy(keep=frozenset()), now_epoch=0)):
    try: action()
    except ShiplapError as error: print(type(error).__name__, "|", error.message, "|", error.hint)
"""
    done = as_user(65534, program, common, digest)
    assert done.stderr == ""
    found, repair, collecting = done.stdout.splitlines()
    assert found == "False 1"
    assert repair.startswith("CacheUnusable | blobs/sha256/") and "and this user may not remove it" in repair
    assert collecting.startswith("CacheUnusable | ")
    assert common.discard(digest) and not common.has(digest)


def test_a_folder_that_may_not_be_made_or_entered_is_refused(common: Cache) -> None:
    done = as_user(65534, TRY, common, "mine")
    assert done.stdout.startswith(f"CacheUnusable | cannot use the cache {common.root}: Permission denied | set SHIPLAP_CACHE")
    common.root.mkdir(mode=0o700)
    done = as_user(65534, TRY, common, "mine")
    assert done.stdout.startswith(f"CacheUnusable | cannot read the cache {common.root}: Permission denied | set SHIPLAP_CACHE")


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheUnusable, match=r"cannot .* the cache .*file"):
            put(Cache(root), b"x")


@pytest.mark.parametrize("sticky", [0, 0o1000], ids=["plain", "sticky"])
def test_users_share_a_folder_that_all_may_write_to(common: Cache, sticky: int) -> None:
    """As a DL_DIR of a build farm; 022 is everybody's umask."""
    for folder in (common.root, common.root / "blobs", common.root / "blobs/sha256", common.root / "partial", common.root / "use"):
        folder.mkdir()
        folder.chmod(0o777 | sticky)
    for uid, word in ((1001, "one"), (1002, "two"), (1001, "two"), (1003, "one")):
        done = as_user(uid, TRY, common, word)
        assert (done.stdout, done.stderr) == ("", "")
    owners = [blob_file(common, digest).stat().st_uid for digest, _ in common.blobs()]
    assert sorted(owners) == [1001, 1002]


def test_a_partial_that_another_user_left_is_begun_anew(common: Cache) -> None:
    for folder in (common.root, common.root / "blobs", common.root / "blobs/sha256", common.root / "partial", common.root / "use"):
        folder.mkdir()
        folder.chmod(0o777)
    begin = "with cache.partial(sha256(b'word'), 4) as partial: partial.write(b'wo')\n"
    assert as_user(1001, begin, common).stderr == ""
    assert partial_file(common, sha256(b"word")).stat().st_uid == 1001
    done = as_user(1002, TRY, common, "word")
    assert (done.stdout, done.stderr) == ("", "")
    assert content(common, sha256(b"word"), 4) == b"word" and list(common.partials()) == []


def test_root_does_not_go_on_with_what_another_user_began(common: Cache) -> None:
    """Who began it may still have it open, and write to it after it was hashed."""
    put(common, b"so that it is a cache")
    begun = partial_file(common, DIGEST)
    begun.write_bytes(DATA[:1000])
    os.chown(begun, 1001, 1001)
    with begun.open("r+b") as still_open, common.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None and partial.offset_bytes == 0
        partial.write(DATA)
        still_open.write(b"lie")
        still_open.flush()
        partial.finish()
    assert content(common, DIGEST, len(DATA)) == DATA


def test_a_process_that_changes_the_file_while_it_comes_in_is_found_out(cache: Cache) -> None:
    """The hash is of what was written; who may write to the folder may still lie, and every reader checks again."""
    with cache.partial(DIGEST, len(DATA)) as partial:
        assert partial is not None
        partial.write(DATA)
        with partial_file(cache, DIGEST).open("r+b") as file:
            file.write(b"lie")
        partial.finish()
    with pytest.raises(BlobCorrupt):
        content(cache, DIGEST, len(DATA))
