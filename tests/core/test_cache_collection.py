"""Garbage collection: what may go goes, and never what a running process uses or brings in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cacheblobs import blob_file, content, finished, partial_file, process, put, said, sha256
from hypothesis import given
from hypothesis import strategies as st
from shiplap.core.cache import Cache, CacheUnusable, use
from shiplap.core.cache.collection import Collected, Policy, _going, collect
from shiplap.core.cache.verification import verify_all

NOW = 2_000_000_000
DAY = 24 * 3600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def filled(root: Path, **days: int) -> dict[str, str]:
    """Blobs of 100 bytes, by name; ``days``: how many days ago each was used. Nobody uses any of them afterwards."""
    cache = Cache(root)
    digests = {}
    for name, ago in days.items():
        digests[name] = put(cache, name.encode().ljust(100))
        os.utime(blob_file(cache, digests[name]), (0, NOW - ago * DAY))
    return digests


def gone(collected: Collected, digests: dict[str, str]) -> list[str]:
    return sorted(name for name, digest in digests.items() if (digest, 100) in collected.removed)


@pytest.mark.parametrize(
    ("keep", "days", "max_bytes", "expected"),
    [
        (None, None, None, ""),
        ("", None, None, "a b c d"),
        ("b", None, None, "a c d"),
        (None, 5, None, "c d"),
        ("d", 5, None, "c"),
        (None, None, 250, "c d"),
        (None, None, 400, ""),
        (None, None, 0, "a b c d"),
        ("d a", None, 250, "b c"),
        (None, 9, 300, "d"),
        (None, 5, 300, "c d"),
        ("a b c d", 0, 0, ""),
    ],
)
def test_what_the_policy_gives_up_goes_oldest_first(
    root: Path, keep: str | None, days: int | None, max_bytes: int | None, expected: str
) -> None:
    digests = filled(root, a=1, b=2, c=8, d=30)
    names = None if keep is None else frozenset(digests[name] for name in keep.split())
    policy = Policy(names, None if days is None else days * DAY, max_bytes)
    would = collect(Cache(root), policy, now_epoch=NOW, dry_run=True)
    assert len(list(Cache(root).blobs())) == 4
    done = collect(Cache(root), policy, now_epoch=NOW)
    assert done == would and gone(done, digests) == expected.split()
    left = {digest for digest, _ in Cache(root).blobs()}
    assert left == {digest for name, digest in digests.items() if name not in expected.split()}
    assert (done.left_blobs, done.left_bytes, done.freed_bytes) == (len(left), 100 * len(left), 100 * (4 - len(left)))


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.tuples(st.integers(0, 50), st.integers(0, 9))),
    st.builds(
        Policy,
        st.none() | st.frozensets(st.text("abcdef", min_size=1, max_size=1)),
        st.none() | st.integers(0, 60),
        st.none() | st.integers(0, 40),
    ),
    st.frozensets(st.text("abcdef", min_size=1, max_size=1)),
)
def test_a_policy_keeps_its_word(blobs: dict[str, tuple[int, int]], policy: Policy, held: frozenset[str]) -> None:
    going = _going(blobs, policy, held, 50) - held
    assert not going & (policy.keep or frozenset())
    left = {name: blob for name, blob in blobs.items() if name not in going}
    movable = {name: used for name, (used, _) in left.items() if name not in held and name not in (policy.keep or ())}
    if policy.unused_seconds is not None:
        assert all(used >= 50 - policy.unused_seconds for used in movable.values())
    if policy.max_bytes is not None:
        assert sum(size for _, size in left.values()) <= policy.max_bytes or not movable
    if policy.unused_seconds is None and movable and going:
        # Nothing younger went while something older could stay.
        assert policy.max_bytes is not None and max(blobs[name][0] for name in going) <= min(movable.values())


def test_using_a_blob_makes_it_young(root: Path) -> None:
    digests = filled(root, old=100, used=100)
    for digest in digests.values():
        os.utime(blob_file(Cache(root), digest), (0, time.time() - 100 * DAY))
    assert content(Cache(root), digests["used"], 100)
    assert gone(collect(Cache(root), Policy(unused_seconds=50 * DAY), now_epoch=time.time()), digests) == ["old"]


def test_listing_and_verifying_make_nothing_young(root: Path) -> None:
    digests = filled(root, old=100)
    cache = Cache(root)
    assert verify_all(cache).blobs == len(list(cache.statuses())) == 1
    assert gone(collect(cache, Policy(unused_seconds=50 * DAY), now_epoch=NOW), digests) == ["old"]


USES = """
digest = sys.argv[2]
print(cache.has(digest))
sys.stdin.readline()
from cacheblobs import content
print(len(content(cache, digest, 100)))
"""


def test_what_a_running_process_has_found_stays_until_it_ends(root: Path) -> None:
    digests = filled(root, a=1, b=1)
    user = process(USES, Cache(root), digests["a"])
    assert said(user) == "True"
    done = collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW)
    assert gone(done, digests) == ["b"] and done.in_use == (digests["a"],)
    assert finished(user) == "100\n"
    assert gone(collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW), digests) == ["a"]


def test_a_process_that_ends_while_its_file_is_looked_at_hides_nobody_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = filled(root, a=1)
    user = Cache(root)
    assert user.has(digests["a"])
    listed = use.names_in
    monkeypatch.setattr(use, "names_in", lambda folder: ["0" * 24, *listed(folder)])  # the first is gone by now
    assert collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW).in_use == (digests["a"],)


def test_a_killed_process_uses_nothing(root: Path) -> None:
    digests = filled(root, a=1)
    user = process(USES, Cache(root), digests["a"])
    said(user)
    user.kill()
    user.communicate()
    assert len(os.listdir(root / "use")) == 1
    assert gone(collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW), digests) == ["a"]
    assert os.listdir(root / "use") == []


def test_what_this_process_brought_in_stays_as_long_as_its_cache(root: Path) -> None:
    cache = Cache(root)
    digest = put(cache, b"mine")
    assert collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW).in_use == (digest,)
    del cache
    assert collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW).removed == ((digest, 4),)


def test_room_that_is_in_use_is_made_up_for_by_younger_blobs(root: Path) -> None:
    digests = filled(root, old=9, middle=5, new=1)
    user = Cache(root)
    assert user.has(digests["old"])
    os.utime(blob_file(user, digests["old"]), (0, NOW - 9 * DAY))
    done = collect(Cache(root), Policy(max_bytes=200), now_epoch=NOW)
    assert gone(done, digests) == ["middle"]


BRINGS = """
with cache.partial(sha256(b"word"), 4) as partial:
    partial.write(b"wo")
    print("begun")
    sys.stdin.readline()
    partial.write(b"rd")
    partial.finish()
"""


def test_what_is_coming_in_is_left_alone_and_what_nobody_brings_any_more_goes(root: Path) -> None:
    cache = Cache(root)
    left, wanted = sha256(b"left"), sha256(b"wanted")
    for digest in (left, wanted):
        with cache.partial(digest, None) as partial:
            assert partial is not None
            partial.write(b"le")
        os.utime(partial_file(cache, digest), (NOW, NOW - 2 * DAY))
    bringer = process(BRINGS, cache)
    assert said(bringer) == "begun"
    os.utime(partial_file(cache, sha256(b"word")), (NOW, NOW - 2 * DAY))
    assert collect(cache, Policy(keep=frozenset([wanted]), max_bytes=0), now_epoch=NOW).partials == ((left, 2),)
    assert finished(bringer) == ""
    assert content(cache, sha256(b"word"), 4) == b"word"
    assert [digest for digest, _ in cache.partials()] == [wanted]


def test_a_young_partial_may_still_be_resumed_unless_only_the_locks_count(root: Path) -> None:
    cache = Cache(root)
    with cache.partial(sha256(b"young"), None) as partial:
        assert partial is not None
        partial.write(b"yo")
    os.utime(partial_file(cache, sha256(b"young")), (NOW, NOW - 3600))
    for policy in (Policy(), Policy(max_bytes=0), Policy(unused_seconds=0, keep=frozenset())):
        assert collect(cache, policy, now_epoch=NOW).partials == ()
    assert collect(cache, Policy(keep=frozenset()), now_epoch=NOW).partials == ((sha256(b"young"), 2),)


def test_collecting_while_others_bring_in_and_read_breaks_nobody(root: Path) -> None:
    program = """
from cacheblobs import content
for number in range(120):
    cache = Cache(cache.root)
    digest = put(cache, bytes([number % 5]) * 3000)
    assert content(cache, digest, 3000)
"""
    running = [process(program, Cache(root)) for _ in range(3)]
    removed = 0
    while any(one.poll() is None for one in running):
        if root.exists():
            removed += len(collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW).removed)
    for one in running:
        finished(one)
    assert removed > 5


def test_a_folder_that_is_no_cache_is_not_collected(tmp_path: Path) -> None:
    """An OCI layout looks like one."""
    assert collect(Cache(tmp_path / "absent"), Policy(keep=frozenset()), now_epoch=NOW) == Collected()
    layout = tmp_path / "layout"
    filled(layout, a=1)
    (layout / "CACHEDIR.TAG").unlink()
    (layout / "oci-layout").write_text("{}")
    with pytest.raises(CacheUnusable, match="is no cache of shiplap"):
        collect(Cache(layout), Policy(keep=frozenset()), now_epoch=NOW)
    assert len(os.listdir(layout / "blobs/sha256")) == 1


def test_names_that_are_no_blobs_are_left_alone(root: Path) -> None:
    filled(root, a=1)
    odd = [root / "blobs/sha256/notes", root / "blobs/md5", root / "partial/x", root / "use/readme", root / "use/folder"]
    for path in odd:
        path.mkdir() if path.name in ("md5", "folder") else path.touch()
    assert len(collect(Cache(root), Policy(keep=frozenset()), now_epoch=NOW).removed) == 1
    assert all(path.exists() for path in odd)
