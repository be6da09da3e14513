"""The chain from a store back to its images: whatever is changed is found and named, even if everything else is made to fit."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import CAPABILITY, file, hardlink
from layertar import build
from memorytar import as_file, headers
from requirement import require
from shiplap.audit.chain import read_identity, verify_store
from shiplap.audit.links import BrokenLink
from shiplap.audit.storeview import TarView
from shiplap.audit.verify import NotVerifiable
from shiplap.core.collect import collected_images, parse_argument
from shiplap.core.entries import Bytes, Kind
from shiplap.core.errors import ShiplapError
from shiplap.core.image import chain_ids
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from storeimages import APP_IMAGE, DATA_IMAGE, EPOCH, identity, streams
from tampering import Change, Entries, Form, Made, add, data_of, edit, rewrite, seal, verify

BASE, APP = (chain.partition(":")[2] for chain in chain_ids(tuple(APP_IMAGE.diff_ids)))
DATA = chain_ids(tuple(DATA_IMAGE.diff_ids))[2].partition(":")[2]


def test_a_store_that_nobody_touched_holds(form: Form) -> None:
    links = verify(form.write())
    assert [link for link, _ in links] == [
        "checksums",
        *(["root hash", "SquashFS"] if form.image else ["tar"]),
        "configs",
        "layers",
        "tree",
    ]
    assert dict(links)["configs"].startswith("2 images") and dict(links)["layers"].startswith("5 tars")
    assert f"{len(form.entries)} entries" in dict(links)["tree"]


# --- the layers' trees

Tampering = Callable[[Form], tuple[str, Change]]
"""Gives what the message must name, and the change."""


def in_layer(path: str, change: Callable[[Entries, str], object], chain: str = BASE) -> Tampering:
    def tampering(form: Form) -> tuple[str, Change]:
        full = form.layer(chain, path)
        return full.rpartition("/")[2] if path == "" else full, lambda entries: change(entries, full)

    return tampering


def setting(**fields: object) -> Callable[[Entries, str], object]:
    return lambda entries, path: edit(entries, path, **fields)


def data(change: Callable[[bytes], bytes]) -> Callable[[Entries, str], object]:
    return lambda entries, path: rewrite(entries, path, change)


def adding(sibling: str) -> Callable[[Entries, str], object]:
    """A further entry, like the one called ``sibling`` beside it."""
    return lambda entries, path: add(entries, path, "/".join([*path.split("/")[:-1], sibling]))


def removing(entries: Entries, path: str) -> None:
    del entries[path]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def split_link(entries: Entries, path: str) -> None:
    """The second name of a file becomes a file of its own with the same content."""
    target = entries[entries[path].link.decode()]
    entries[path] = replace(target, path=path.encode())


LAYERS: dict[str, Tampering] = {
    "a mode": in_layer("bin/ping", setting(mode=0o4755)),
    "a directory's mode": in_layer("tmp", setting(mode=0o777)),
    "the mode of a layer's root": in_layer("", setting(mode=0o700)),
    "an owner": in_layer("run/pipe", setting(uid=0)),
    "a group": in_layer("run/pipe", setting(gid=0)),
    "a time": in_layer("bin", setting(mtime_epoch=1)),
    "an implied directory's time": in_layer("deep", setting(mtime_epoch=EPOCH + 1)),
    "a link's target": in_layer("bin/bash", setting(link=b"/bin/evil")),
    "a device's number": in_layer("dev/null", setting(device=(1, 9))),
    "a capability": in_layer("bin/ping", setting(xattrs=((b"security.capability", CAPABILITY[::-1]), (b"user.note", b"\0\xff")))),
    "an xattr too few": in_layer("bin/ping", setting(xattrs=((b"user.note", b"\0\xff"),))),
    "an xattr too many": in_layer("etc/passwd", setting(xattrs=((b"user.new", b"1"),))),
    "an opaque mark": in_layer("tmp", setting(xattrs=()), DATA),
    "a further opaque mark": in_layer("srv", setting(xattrs=((b"trusted.overlay.opaque", b"y"),)), APP),
    "a byte of a file": in_layer("etc/passwd", data(flipped)),
    "a file's length": in_layer("etc/passwd", data(lambda content: content + b"evil::0:0::/:/bin/sh\n")),
    "an emptied file": in_layer("bin/su", data(lambda content: b"")),
    "content that travels in tar-split data": in_layer("srv/x", data(flipped), DATA),
    "a file that is gone": in_layer("bin/su", removing),
    "a link that is gone": in_layer("bin/bash", removing),
    "a whiteout that is gone": in_layer("bin/su", removing, APP),
    "a whiteout that became a file": in_layer("bin/su", setting(kind=Kind.REGULAR, content=Bytes(b"")), APP),
    "a device that became another kind": in_layer("dev/null", setting(kind=Kind.BLOCK)),
    "a hard link that became a file": in_layer("bin/sh2", split_link),
    "a symlink that became a file": in_layer("etc/long", setting(kind=Kind.REGULAR, link=b"", content=Bytes(b"x"))),
    "a further file": in_layer("bin/evil", adding("ping")),
    "a further hard link": in_layer("bin/evil", adding("sh2")),
    "a further directory": in_layer("evil", adding("bin")),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_a_change_in_a_layer_is_found_and_named(form: Form, case: str) -> None:
    named, change = LAYERS[case](form)
    change(form.entries)
    with pytest.raises(BrokenLink) as caught:
        verify(form.write())
    assert (
        named in caught.value.message
        or named.partition("/diff/")[2] in caught.value.message
        or named.split("/", 2)[-1] in caught.value.message
    )
    assert caught.value.message.isprintable()


# --- everything around the layers


def metadata(path: str, change: Callable[[Entries, str], object]) -> Tampering:
    def tampering(form: Form) -> tuple[str, Change]:
        full = form.metadata + path
        return full, lambda entries: change(entries, full)

    return tampering


RECORD = f"image/overlay2/layerdb/sha256/{APP}"
METADATA: dict[str, Tampering] = {
    "a repository": metadata("image/overlay2/repositories.json", data(lambda text: text.replace(b"app:1", b"app:2"))),
    "a config's mode": metadata(f"image/overlay2/imagedb/content/sha256/{APP_IMAGE.config_digest[7:]}", setting(mode=0o644)),
    "cache-id": metadata(f"{RECORD}/cache-id", data(flipped)),
    "diff": metadata(f"{RECORD}/diff", data(flipped)),
    "parent": metadata(f"{RECORD}/parent", data(flipped)),
    "size": metadata(f"{RECORD}/size", data(lambda text: b"1" + text)),
    "link": metadata(f"overlay2/{APP}/link", data(lambda text: text[::-1])),
    "lower": metadata(f"overlay2/{APP}/lower", data(lambda text: text + b":l/EVIL")),
    "a missing lower": metadata(f"overlay2/{APP}/lower", removing),
    "a missing committed": metadata(f"overlay2/{BASE}/committed", removing),
    "a further file beside a layer": metadata(f"overlay2/{APP}/evil", adding("link")),
    "a further image": metadata("image/overlay2/imagedb/content/sha256/" + "0" * 64, adding(APP_IMAGE.config_digest[7:])),
    "a further folder at the top": metadata("evil", adding("image")),
    "the data-root's mode": metadata("overlay2", setting(mode=0o777)),
    "the data-root's owner": metadata("image", setting(uid=1000)),
    "a metadata file's time": metadata("image/overlay2/repositories.json", setting(mtime_epoch=0)),
}  # fmt: skip


@pytest.mark.parametrize("case", METADATA)
def test_a_change_in_the_metadata_is_found_and_named(form: Form, case: str) -> None:
    named, change = METADATA[case](form)
    change(form.entries)
    with pytest.raises(BrokenLink) as caught:
        verify(form.write())
    assert named in caught.value.message


def test_skeleton_links_that_lead_elsewhere_are_found(made: Made, tmp_path: Path) -> None:
    require("tar2sqfs")
    for path in (f"skeleton/overlay2/{APP}/diff", f"skeleton/{RECORD}/tar-split.json.gz"):
        form = Form(tmp_path, made.store_json, made.sealed, image=True)
        edit(form.entries, path, link=b"/evil")
        with pytest.raises(
            BrokenLink, match=re.escape(f"'{path}' has link '/evil', it should have '/usr/share/shiplap/store/layers/{APP}")
        ):
            verify(form.write())


def test_a_fraction_of_a_second_is_found_where_it_can_be_kept(made: Made, tmp_path: Path) -> None:
    form = Form(tmp_path, made.store_json, made.data_root, image=False)
    edit(form.entries, form.layer(BASE, "etc/passwd"), mtime_nanoseconds=123456788)
    with pytest.raises(BrokenLink, match="etc/passwd' has mtime nanoseconds 123456788, it should have 123456789"):
        verify(form.write())


def test_a_layer_that_is_gone_is_found(form: Form) -> None:
    root = form.layer(APP)
    for path in [path for path in form.entries if path == root or path.startswith(root + "/")]:
        del form.entries[path]
    with pytest.raises(BrokenLink, match=f"layer {APP[:12]} .*its tree is missing"):
        verify(form.write())


def test_configs_that_changed_places_are_found(form: Form) -> None:
    one, other = (f"{form.metadata}image/overlay2/imagedb/content/sha256/{image.config_digest[7:]}" for image in (APP_IMAGE, DATA_IMAGE))
    form.entries[one], form.entries[other] = (
        replace(form.entries[one], content=form.entries[other].content),
        replace(form.entries[other], content=form.entries[one].content),
    )
    with pytest.raises(BrokenLink, match=r"the config sha256:.* has digest sha256:"):
        verify(form.write())


def test_a_config_that_is_gone_or_changed_is_found(form: Form) -> None:
    path = f"{form.metadata}image/overlay2/imagedb/content/sha256/{APP_IMAGE.config_digest[7:]}"
    before = form.entries[path]
    rewrite(form.entries, path, lambda text: text.replace(b"/bin/app", b"/bin/evi"))
    with pytest.raises(BrokenLink, match=f"the config {APP_IMAGE.config_digest} has digest"):
        verify(form.write())
    del form.entries[path]
    with pytest.raises(BrokenLink, match=f"the config {APP_IMAGE.config_digest} is missing"):
        verify(form.write())
    form.entries[path] = replace(before, kind=Kind.SYMLINK, link=b"/etc/passwd", content=None)
    with pytest.raises((BrokenLink, NotVerifiable), match="content/sha256"):
        verify(form.write())


# --- tar-split data


def relined(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    def rewritten(compressed: bytes) -> bytes:
        return gzip.compress(b"\n".join(change(gzip.decompress(compressed).splitlines())) + b"\n", mtime=0)

    return rewritten


def replacing(old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [line.replace(old, new) for line in lines]


def inlined(lines: list[bytes]) -> list[bytes]:
    """A file's content moved into the data: the same tar comes back, whatever the file holds."""
    values = [json.loads(line) for line in lines]
    for value in values:
        if value.get("name") == "etc/passwd":
            value.clear()
            value.update({"type": 2, "payload": base64.b64encode(b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:\n").decode()})
    return [json.dumps({**value, "position": position}).encode() for position, value in enumerate(values)]


def checksummed(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"payload":"', b'"payload":"AAAA', 1) if b'"size"' in line else line for line in lines]


TAR_SPLIT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "junk behind the data": (lambda compressed: compressed + b"junk", "not what shiplap writes"),
    "another compression": (lambda compressed: gzip.compress(gzip.decompress(compressed), mtime=0), "not what shiplap writes"),
    "further keys": (relined(replacing(b'{"type"', b'{"evil":"1","type"')), "not what shiplap writes"),
    "another spelling of a name": (relined(replacing(b'"srv/app"', b'"./srv/app"')), "not what shiplap writes"),
    "content moved into it": (relined(inlined), "not what shiplap writes"),
    "a line too few": (relined(lambda lines: lines[:-1]), "has diffID"),
    "a line too many": (relined(lambda lines: [*lines, b'{"type":2,"payload":"YQ==","position":%d}' % len(lines)]), "has diffID"),
    "lines in another order": (relined(lambda lines: lines[::-1]), "has position"),
    "a wrong checksum": (relined(checksummed), "not a tar-split entry"),
    "another name": (relined(replacing(b"srv/app", b"srv/apq")), "the layer's file 'srv/apq' is missing"),
    "a name that climbs": (relined(replacing(b"srv/app", b"../../x")), "the layer's file '../../x' is missing"),
    "no gzip": (lambda compressed: b"{}", "is not gzip"),
    "nothing": (lambda compressed: b"", "is truncated"),
    "half of it": (lambda compressed: compressed[: len(compressed) // 2], "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAR_SPLIT)
def test_tar_split_data_that_was_changed_is_found(form: Form, case: str) -> None:
    change, says = TAR_SPLIT[case]
    rewrite(form.entries, form.tar_split(APP), change)
    with pytest.raises(BrokenLink, match=says) as caught:
        verify(form.write())
    assert APP[:12] in caught.value.message or "app:1" in caught.value.message


def test_tar_split_data_that_is_gone_is_found(form: Form) -> None:
    del form.entries[form.tar_split(APP)]
    with pytest.raises(BrokenLink, match="its tar-split data is missing"):
        verify(form.write())


def test_tar_split_data_that_never_ends_is_stopped(form: Form) -> None:
    line = b'{"type":1,"payload":null,"position":%d}\n'
    text = b"".join(line % number for number in range(5000))
    rewrite(form.entries, form.tar_split(APP), lambda compressed: gzip.compress(text, mtime=0))
    with pytest.raises(NotVerifiable, match="has more than 301 parts"):
        verify(form.write(), limits=Limits(entries=100, layer_bytes=1 << 20))
    bomb = zlib.compressobj(wbits=31)
    big = b'{"type":2,"payload":"%s","position":0}\n' % base64.b64encode(bytes(2 << 20))
    rewrite(form.entries, form.tar_split(APP), lambda compressed: bomb.compress(big) + bomb.flush())
    with pytest.raises(NotVerifiable, match="its tar is larger than 1048576 bytes"):
        verify(form.write(), limits=Limits(layer_bytes=1 << 20))


# --- what follows a store, and what lies in it in another form


def test_a_tar_with_something_behind_its_end_is_found(made: Made, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_bytes(made.store_json)
    for rest in (b"x", bytes(512), made.data_root):
        (tmp_path / "store.tar").write_bytes(made.data_root + rest)
        with pytest.raises((BrokenLink, NotVerifiable), match="behind its last entry"):
            verify(tmp_path / "store.tar")
    (tmp_path / "store.tar").write_bytes(made.data_root[:-512])
    with pytest.raises((BrokenLink, NotVerifiable), match="behind its last entry"):
        verify(tmp_path / "store.tar")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_tar_raises_nothing_but_our_own_errors(made: Made, changes: list[tuple[float, int, int]]) -> None:
    tar = bytearray(made.data_root)
    offsets = [header.start for header in headers(made.data_root)]
    for where, at, value in changes:
        start = offsets[int(where * len(offsets))]
        tar[start + at] = value
        block = bytes(tar[start : start + 512])
        tar[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    with as_file(bytes(tar)) as file_:
        try:
            verify_store(TarView("store.tar", file_), made.store_json, Limits(), SILENT)
        except ShiplapError as error:
            assert error.message.isprintable()


def test_the_store_path_and_references_come_back_as_they_were(made: Made) -> None:
    with as_file(made.data_root) as tar:
        found = read_identity(TarView("store.tar", tar), made.store_json, Limits())
    assert found.to_json() == made.store_json
    assert {image.image.config_digest for image in found.images} == {APP_IMAGE.config_digest, DATA_IMAGE.config_digest}


def test_a_store_for_arm_v6_whose_configs_name_no_variant_holds(tmp_path: Path) -> None:
    arm = ImageSpec([build([file("f", b"1"), hardlink("g", "f")])], tags=["arm:1"], platform="linux/arm")
    source = f"docker-archive:{docker_archive(tmp_path / 'arm.tar', [arm])}"
    with collected_images([parse_argument(source)], None, Limits(), tmp_path) as images:
        store = replace(identity(images), platform=replace(images[0].image.platform, variant="v6"))
        _, data_root = streams(store)
        with as_file(data_root) as tar:
            assert verify_store(TarView("store.tar", tar), store.to_json(), Limits(), SILENT).layers == 1


def test_a_tampered_image_with_a_seal_of_its_own_does_not_pass_for_the_one_that_is_trusted(made: Made, tmp_path: Path) -> None:
    require("tar2sqfs")
    form = Form(tmp_path, made.store_json, made.sealed, image=True)
    trusted = (form.write() / "store.roothash").read_text().strip()
    edit(form.entries, form.layer(BASE, "bin/ping"), mode=0o4755)
    form.write()
    seal(tmp_path / "store.squashfs", data_of(form.entries["store.json"]))
    with pytest.raises(BrokenLink, match="--root-hash is"):
        verify(tmp_path, trusted)
    with pytest.raises(BrokenLink, match=r"does not hold against its root hash|root hash"):
        verify(tmp_path / "store.squashfs", trusted)
