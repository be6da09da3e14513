"""Download mirrors and the flat export that makes one: verified, resumed, and the next one asked when one is wrong."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cacheblobs import blob_file, child_environment, command, content, partial_file, put, sha256
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache
from shiplap.core.cache.export import ExportRefused, export
from shiplap.core.cache.mirror import MirrorInvalid, Unreachable, fetch_from
from shiplap.core.progress import SILENT
from smalldisk import with_small_disk

DATA = os.urandom(300_000)
DIGEST = sha256(DATA)
NAME = DIGEST.replace(":", "-")


class Notes:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.task = SILENT.task

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def folder(path: Path, **files: bytes) -> str:
    path.mkdir()
    for name, data in files.items():
        (path / (NAME if name == "blob" else name)).write_bytes(data)
    return str(path)


class Server(ThreadingHTTPServer):
    """Serves ``files`` in the way that ``how`` says; remembers what it was asked."""

    files: dict[str, bytes]
    how: str
    asked: list[tuple[str, str | None, str | None]]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append((self.path, wanted, self.headers["Authorization"]))
        data = server.files.get(self.path.partition("?")[0])
        if data is None or server.how.isdigit():
            self.send_error(404 if data is None else int(server.how))
            return
        if server.how.startswith("to "):
            self.send_response(302)
            self.send_header("Location", server.how[3:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.how != "no ranges" else 0
        if begin and begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + (server.how == 'wrong range')}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if server.how == "breaks":
            self.wfile.write(data[begin : begin + 100_000])
            self.close_connection = begin + 100_000 < len(data)
        else:
            self.wfile.write(data[begin:])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(how: str = "", files: dict[str, bytes] | None = None) -> Iterator[tuple[str, Server]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.how, server.asked = files or {f"/dl/{NAME}": DATA}, how, []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dl", server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetched(cache: Cache, *mirrors: str, size_bytes: int | None = len(DATA)) -> tuple[bool, list[str]]:
    notes = Notes()
    found = fetch_from(mirrors, cache, DIGEST, size_bytes, progress=notes)
    assert found == cache.has(DIGEST)
    if found:
        assert content(cache, DIGEST, len(DATA)) == DATA
    return found, notes.said


def test_a_mirror_that_cannot_be_reached_is_given_up_with_one_note(cache: Cache, tmp_path: Path) -> None:
    with served() as (url, _):
        pass
    notes, unreachable, other = Notes(), Unreachable(), folder(tmp_path / "dl", blob=DATA)
    for digest in (sha256(b"1"), sha256(b"2"), DIGEST):
        found = fetch_from([url, other], cache, digest, None, progress=notes, unreachable=unreachable)
        assert found == (digest == DIGEST)
    assert len(notes.said) == 1 and f"the mirror {url} cannot be reached, and is not asked again: Connection refused" in notes.said[0]
    assert url in unreachable and other not in unreachable


def test_a_mirror_that_says_no_once_is_asked_again(cache: Cache) -> None:
    unreachable = Unreachable()
    with served("500") as (url, server):
        for _ in range(2):
            fetch_from([url], cache, DIGEST, None, unreachable=unreachable)
        assert len(server.asked) == 2 and url not in unreachable


@pytest.mark.parametrize("size_bytes", [len(DATA), None])
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_folder_is_a_mirror(cache: Cache, tmp_path: Path, prefix: str, size_bytes: int | None) -> None:
    assert fetched(cache, prefix + folder(tmp_path / "dl", blob=DATA), size_bytes=size_bytes) == (True, [])


def test_a_web_server_is_a_mirror(cache: Cache) -> None:
    with served() as (url, server):
        assert fetched(cache, url + "/") == (True, [])
        assert server.asked == [(f"/dl/{NAME}", None, None)]


def test_nobody_is_asked_for_what_is_there(cache: Cache) -> None:
    put(cache, DATA)
    assert fetched(cache, "http://127.0.0.1:1/") == (True, [])


def test_what_no_mirror_has_is_not_there_and_that_is_no_news(cache: Cache, tmp_path: Path) -> None:
    with served(files={"/": b""}) as (url, _):
        assert fetched(cache, url, folder(tmp_path / "dl"), str(tmp_path / "absent")) == (False, [])


@pytest.mark.parametrize("wrong", [b"x" + DATA[1:], DATA + b"x", DATA[:-1], b""])
def test_a_wrong_file_is_reported_and_the_next_mirror_asked(cache: Cache, tmp_path: Path, wrong: bytes) -> None:
    first = folder(tmp_path / "first", blob=wrong)
    with served() as (url, _):
        found, notes = fetched(cache, first, url)
    assert found and len(notes) == 1 and notes[0].startswith(f"{first} has a wrong {NAME}: ")
    cache.discard(DIGEST)
    with served(files={f"/dl/{NAME}": wrong}) as (url, _):
        found, notes = fetched(cache, url)
    assert not found and len(notes) == 1 and url in notes[0] and list(cache.partials()) == []


def test_a_broken_transfer_is_resumed(cache: Cache) -> None:
    with served("breaks") as (url, server):
        assert fetched(cache, url) == (True, [])
        assert [wanted for _, wanted, _ in server.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_always_breaks_off_is_given_up_and_the_next_mirror_goes_on(cache: Cache, tmp_path: Path) -> None:
    good = folder(tmp_path / "good", blob=DATA)
    with served("breaks", {f"/dl/{NAME}": DATA + bytes(500_000)}) as (url, server):
        found, notes = fetched(cache, url, good, size_bytes=None)
        assert found and len(server.asked) == 4
        assert notes == [f"{url}: cannot get {NAME}: the connection ended 400000 bytes early"]


def test_what_was_left_by_another_source_is_gone_on_with_and_a_wrong_beginning_starts_over(cache: Cache) -> None:
    for beginning, asked in ((DATA[:1000], ["bytes=1000-"]), (b"x" * 1000, ["bytes=1000-", None]), (DATA, [])):
        with cache.partial(DIGEST, None) as partial:
            assert partial is not None
            partial.write(beginning)
        with served() as (url, server):
            assert fetched(cache, url) == (True, [])
            assert [wanted for _, wanted, _ in server.asked] == asked
        cache.discard(DIGEST)


def test_a_beginning_that_is_longer_than_what_they_have_starts_over(cache: Cache) -> None:
    with cache.partial(DIGEST, None) as partial:
        assert partial is not None
        partial.write(bytes(400_000))
    with served() as (url, server):
        assert fetched(cache, url, size_bytes=None) == (True, [])
        assert [wanted for _, wanted, _ in server.asked] == ["bytes=400000-", None]


def test_a_blob_of_unknown_size_does_not_fill_the_disk(cache: Cache, tmp_path: Path) -> None:
    notes = Notes()
    assert not fetch_from([folder(tmp_path / "dl", blob=DATA)], cache, DIGEST, None, limit_bytes=len(DATA) - 1, progress=notes)
    assert len(notes.said) == 1 and f"has more than {len(DATA) - 1} bytes" in notes.said[0]
    assert dict(cache.partials()).get(DIGEST, 0) == 0
    assert fetch_from([str(tmp_path / "dl")], cache, DIGEST, None, limit_bytes=len(DATA))


@pytest.mark.parametrize("how", ["no ranges", "wrong range"])
def test_servers_that_do_not_know_ranges(cache: Cache, how: str) -> None:
    with cache.partial(DIGEST, None) as partial:
        assert partial is not None
        partial.write(DATA[:1000])
    with served(how) as (url, _):
        found, notes = fetched(cache, url)
    assert (found, notes) == ((True, []) if how == "no ranges" else (False, [notes[0]]))
    assert how == "no ranges" or "another part than the one asked for" in notes[0]


@pytest.mark.parametrize(("how", "said"), [("503", "HTTP 503 Service Unavailable"), ("403", "HTTP 403 Forbidden"), ("500", "HTTP 500")])
def test_what_a_server_refuses_is_said_and_the_next_asked(cache: Cache, tmp_path: Path, how: str, said: str) -> None:
    with served(how) as (url, _):
        found, notes = fetched(cache, url, folder(tmp_path / "dl", blob=DATA))
    assert found and len(notes) == 1 and f"{url}: cannot get {NAME}: {said}" in notes[0]


def test_a_server_that_is_not_there_is_said(cache: Cache) -> None:
    found, notes = fetched(cache, "http://127.0.0.1:1/dl")
    assert not found and "http://127.0.0.1:1/dl cannot be reached" in notes[0] and "Connection refused" in notes[0]


def test_a_redirection_is_followed_but_never_to_a_file(cache: Cache, tmp_path: Path) -> None:
    with served() as (target, _), served(f"to {target}/{NAME}") as (url, _):
        assert fetched(cache, url) == (True, [])
    cache.discard(DIGEST)
    with served(f"to file://{folder(tmp_path / 'dl', blob=DATA)}/{NAME}") as (url, _):
        found, notes = fetched(cache, url)
    assert not found and len(notes) == 1


def test_a_redirection_to_nonsense_is_said(cache: Cache) -> None:
    with served("to http://[nonsense/") as (url, _):
        found, notes = fetched(cache, url)
    assert not found and "no valid address" in notes[0]


def test_a_password_goes_to_its_server_alone_and_into_no_message(cache: Cache) -> None:
    with served() as (target, inner), served(f"to {target}/{NAME}") as (url, outer):
        assert fetched(cache, url.replace("http://", "http://me:s%40cret@") + "?token=hidden") == (True, [])
        assert [(path, login) for path, _, login in outer.asked] == [(f"/dl/{NAME}?token=hidden", "Basic bWU6c0BjcmV0")]
        assert [login for *_, login in inner.asked] == [None]
    _, notes = fetched(Cache(cache.root.parent / "other"), "http://me:secret@127.0.0.1:1/dl?token=hidden")
    assert "secret" not in notes[0] and "hidden" not in notes[0]


@pytest.mark.parametrize(
    "mirror",
    [
        "ftp://example.org/dl",
        "",
        "s3://bucket",
        "http://[nonsense/",
        "ftp://u:secret@h",
        "http://u:secret@[::1/",
        "http://u:secret\u2100@h/",
    ],
)
def test_other_mirrors_are_refused_without_their_password(cache: Cache, mirror: str) -> None:
    with pytest.raises(MirrorInvalid, match="is no mirror") as caught:
        fetched(cache, mirror)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling"])
def test_odd_things_of_that_name_in_a_folder_hang_nothing(cache: Cache, tmp_path: Path, kind: str) -> None:
    path = Path(folder(tmp_path / "dl")) / NAME
    {"folder": path.mkdir, "fifo": lambda: os.mkfifo(path), "dangling": lambda: path.symlink_to("nowhere")}[kind]()
    found, notes = fetched(cache, str(tmp_path / "dl"))
    assert not found and len(notes) == (0 if kind == "dangling" else 1)


# --- flat export


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
def test_an_export_is_a_mirror(cache: Cache, tmp_path: Path, link: bool) -> None:
    digests = [put(cache, DATA), put(cache, b"small")]
    done = export(cache, [*digests, DIGEST], tmp_path / "dl", link=link)
    assert sorted(done.new) == sorted(digests) and done.present == ()
    assert sorted(os.listdir(tmp_path / "dl")) == sorted(digest.replace(":", "-") for digest in digests)
    assert os.path.samefile(tmp_path / "dl" / NAME, blob_file(cache, DIGEST)) is link
    assert fetched(Cache(tmp_path / "other"), str(tmp_path / "dl")) == (True, [])


def test_only_what_is_missing_is_written_and_foreign_files_stay(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA), put(cache, b"small")
    (tmp_path / "dl").mkdir()
    (tmp_path / "dl" / "linux-6.1.tar.xz").write_bytes(b"theirs")
    assert export(cache, [DIGEST], tmp_path / "dl").new == (DIGEST,)
    before = (tmp_path / "dl" / NAME).stat()
    done = export(cache, [DIGEST, sha256(b"small")], tmp_path / "dl")
    assert (done.new, done.present) == ((sha256(b"small"),), (DIGEST,))
    assert (tmp_path / "dl" / NAME).stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / "dl" / "linux-6.1.tar.xz").read_bytes() == b"theirs"


def test_a_file_of_the_wrong_size_is_replaced(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA)
    mirror = Path(folder(tmp_path / "dl", blob=DATA[:100]))
    assert export(cache, [DIGEST], mirror).new == (DIGEST,)
    assert (mirror / NAME).read_bytes() == DATA


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
def test_what_rotted_in_the_cache_is_not_exported(cache: Cache, tmp_path: Path, link: bool) -> None:
    put(cache, DATA)
    blob_file(cache, DIGEST).write_bytes(b"x" + DATA[1:])
    with pytest.raises(BlobCorrupt, match="in the cache has the digest"):
        export(cache, [DIGEST], tmp_path / "dl", link=link)
    assert os.listdir(tmp_path / "dl") == []


def test_what_is_not_in_the_cache_cannot_be_exported_and_nothing_is_written(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA)
    with pytest.raises(ExportRefused, match=r"the cache has no sha256:[0-9a-f]{64} and 1 more$"):
        export(cache, [DIGEST, sha256(b"1"), sha256(b"2")], tmp_path / "dl")
    assert not (tmp_path / "dl").exists()


def test_a_full_disk_is_said_and_leaves_no_half_file(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA), put(cache, b"small")
    program = """
from shiplap.core.cache.export import export
try:
    export(cache, [digest for digest, _ in cache.blobs()], Path(sys.argv[2]))
except ShiplapError as error:
    print(error.message, "|", error.hint, "|", [len(name) for name in os.listdir(sys.argv[2])])
"""
    done = with_small_disk(tmp_path / "dl", "100k", command(program, cache, str(tmp_path / "dl")), child_environment())
    assert done.stderr == ""
    assert done.stdout.startswith(f"cannot export to {tmp_path}/dl: No space left on device | make room, or name another folder | [")
    assert done.stdout.endswith(("[71]\n", "[]\n"))


def test_an_export_to_another_file_system_copies_where_it_cannot_link(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA)
    program = """
from shiplap.core.cache.export import export
export(cache, [digest for digest, _ in cache.blobs()], Path(sys.argv[2]), link=True)
print([os.stat(Path(sys.argv[2]) / name).st_nlink for name in os.listdir(sys.argv[2])])
"""
    done = with_small_disk(tmp_path / "dl", "4m", command(program, cache, str(tmp_path / "dl")), child_environment())
    assert (done.stdout, done.stderr) == ("[1]\n", "")


def test_a_file_in_the_folders_place_is_refused(cache: Cache, tmp_path: Path) -> None:
    put(cache, DATA)
    (tmp_path / "dl").touch()
    with pytest.raises(ExportRefused, match=r"cannot export to .*dl: File exists"):
        export(cache, [DIGEST], tmp_path / "dl")


def test_a_partial_that_a_mirror_left_is_in_the_cache(cache: Cache) -> None:
    with served("breaks", {f"/dl/{NAME}": DATA + bytes(1_000_000)}) as (url, _):
        assert not fetched(cache, url, size_bytes=None)[0]
    assert partial_file(cache, DIGEST).stat().st_size == 400_000
