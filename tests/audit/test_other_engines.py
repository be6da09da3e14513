"""Stores of Podman and of the vfs driver: what nobody touched holds, and whatever is changed is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive, dump
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import SAME, file, hardlink
from layertar import build
from memorytar import as_file
from shiplap.audit.chain import BrokenLink, verify_store
from shiplap.audit.inspection import inspect_thing
from shiplap.audit.storeview import StoreUnreadable, TarView
from shiplap.audit.verify import NotVerifiable
from shiplap.core.collect import collected_images, parse_argument
from shiplap.core.entries import Bytes, Kind
from shiplap.core.errors import Refused
from shiplap.core.image import RawManifest, chain_ids
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from shiplap.core.store.podman import layer_ids
from shiplap.core.tar.records import write_records
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from storeimages import APP_IMAGE, DATA_IMAGE, EPOCH, identity, stored_images, streams
from tampering import Entries, add, data_of, edit, entries_of, rewrite, verify, write_tar

FORMS = [("podman", "overlay"), ("docker", "vfs")]
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, repr=False)
class Store:
    """One store in memory: both streams."""

    engine: str
    store_json: bytes
    sealed: bytes
    tar: bytes

    def holds(self, entries: Entries | None = None, *, limits: Limits | None = None) -> int:
        """Verify the tar form with ``entries``; gives how many entries were compared."""
        records: list[bytes] = []
        write_records((entries if entries is not None else entries_of(self.tar)).values(), records.append)
        with as_file(b"".join(records)) as tar:
            return verify_store(TarView("store.tar", tar), self.store_json, limits or Limits(), SILENT).entries


def pinned() -> RawManifest:
    layers = [{"mediaType": "x.tar+gzip", "digest": "sha256:" + f"{number}" * 64, "size": 9} for number in range(2)]
    return RawManifest(dump({"config": {"digest": APP_IMAGE.config_digest}, "layers": layers}), MANIFEST_TYPE)


@pytest.fixture(scope="module", params=[*FORMS, ("podman", "pinned")], ids="-".join)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    engine, driver = request.param
    with stored_images(tmp_path_factory.mktemp("images")) as (app, data):
        if driver == "pinned":
            app, driver = replace(app, manifest=pinned()), "overlay"
        made = identity((app, data), engine=engine, driver=driver)
        return Store(engine, made.to_json(), *streams(made))


def test_a_store_that_nobody_touched_holds_in_both_forms(store: Store, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_bytes(store.store_json)
    (tmp_path / "store.tar").write_bytes(store.tar)
    with open_sink(SquashfsOptions(level=1, epoch=EPOCH), tmp_path / "store.squashfs") as put:
        for entry in entries_of(store.sealed).values():
            put(entry)
    for name, stream in (("store.tar", store.tar), ("store.squashfs", store.sealed)):
        links = dict(verify(tmp_path / name))
        assert links["configs"].startswith("2 images") and links["layers"].startswith("5 tars")
        assert f"{len(entries_of(stream))} entries" in links["tree"]
        (inspection,) = inspect_thing(str(tmp_path / name), None, Limits())
        facts = dict(inspection.facts)
        assert (facts["engine"], facts["driver"]) == tuple(json.loads(store.store_json)[key] for key in ("engine", "driver"))
        sizes = [layer.size_bytes for layer in inspection.images[0].layers]
        assert sizes == ([len(layer) for layer in APP_IMAGE.layers] if store.engine == "podman" else [6239, 210_042])


def test_a_change_of_any_entry_is_found(store: Store) -> None:
    """Each entry in turn with another mode, owner or time, and missing."""
    entries = entries_of(store.tar)
    for number, (path, entry) in enumerate(list(entries.items())):
        changed = dict(entries)
        kind = number % 4
        if kind == 0 and entry.kind is not Kind.HARDLINK:
            edit(changed, path, mode=entry.mode ^ 0o1)
        elif kind == 1 and entry.kind is not Kind.HARDLINK:
            edit(changed, path, uid=entry.uid + 1)
        elif kind == 2 and entry.kind is not Kind.HARDLINK:
            edit(changed, path, mtime_epoch=entry.mtime_epoch + 1)
        else:
            del changed[path]
        with pytest.raises((BrokenLink, Refused)):
            store.holds(changed)


def test_a_change_of_any_file_is_found(store: Store) -> None:
    entries = entries_of(store.tar)
    for path, entry in list(entries.items()):
        if entry.kind is not Kind.REGULAR:
            continue
        changed = dict(entries)
        data = data_of(entry)
        edit(changed, path, content=Bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"))
        with pytest.raises((BrokenLink, Refused)):
            store.holds(changed)


def test_a_further_entry_anywhere_is_found(store: Store) -> None:
    entries = entries_of(store.tar)
    for path, entry in list(entries.items()):
        if entry.kind is Kind.DIRECTORY:
            changed = dict(entries)
            add(changed, f"{path}/more" if path != "." else "more", path)
            with pytest.raises(BrokenLink, match=r"belongs to no image|is in the store, but not in the layer"):
                store.holds(changed)


def test_a_mounted_file_that_is_not_the_same_inode_is_found(tmp_path: Path) -> None:
    """vfs: the second tree's file with another content, consistent in itself."""
    with stored_images(tmp_path) as images:
        sealed, _ = streams(identity(images, driver="vfs"))
    entries = entries_of(sealed)
    top = chain_ids(tuple(APP_IMAGE.diff_ids))[-1].partition(":")[2]
    path = f"data-root/vfs/dir/{top}/bin/sh"
    target = entries[entries[path].link.decode()]
    for content, says in ((data_of(target)[:-1] + b"?", "has another content"), (data_of(target), None)):
        changed = dict(entries)
        changed[path] = replace(target, path=path.encode(), content=Bytes(content))
        for other, entry in list(changed.items()):  # links must not lead to what comes later
            if entry.kind is Kind.HARDLINK and entry.link == path.encode():
                changed[other] = replace(entry, link=target.path)
        image = tmp_path / f"{bool(says)}.squashfs"
        with open_sink(SquashfsOptions(level=1, epoch=EPOCH), image) as put:
            for entry in changed.values():
                put(entry)
        if says:
            with pytest.raises(BrokenLink, match=says):
                verify(image)
        else:
            verify(image)  # the same bytes twice are the same tree


def test_metadata_of_another_engine_are_no_store(store: Store) -> None:
    document = json.loads(store.store_json)
    for engine, driver in (("docker", "overlay"), ("podman", "vfs"), ("docker", "containerd"), ("\x1b[31m", "x" * 5000)):
        with as_file(store.tar) as tar, pytest.raises(StoreUnreadable, match="this release verifies docker with overlay2, docker with vfs"):
            verify_store(TarView("store.tar", tar), dump(document | {"engine": engine, "driver": driver}) + b"\n", Limits(), SILENT)


@pytest.mark.parametrize("engine", FORMS, ids="-".join)
def test_every_layer_that_the_rules_take_verifies(tmp_path: Path, engine: tuple[str, str]) -> None:
    """Every torture layer over the same base, as an image of its own; what this engine refuses is left out."""
    specs = []
    for number, case in enumerate(SAME):
        spec = ImageSpec([APP_IMAGE.layers[0], case.layer], [f"case:{number}"])
        source = f"docker-archive:{docker_archive(tmp_path / 'one.tar', [spec])}"
        with collected_images([parse_argument(source)], None, Limits(), tmp_path) as images:
            try:
                streams(identity(images, engine=engine[0], driver=engine[1]))
            except Refused:
                continue
        specs.append(spec)
    assert len(specs) > len(SAME) - 8
    with stored_images(tmp_path, specs) as images:
        made = identity(images, engine=engine[0], driver=engine[1])
        sealed, tar = streams(made)
    with as_file(tar) as opened:
        assert verify_store(TarView("store.tar", opened), made.to_json(), Limits(), SILENT).layers == len(specs) + 1
    with open_sink(SquashfsOptions(level=1, epoch=EPOCH), tmp_path / "store.squashfs") as put:
        for entry in entries_of(sealed).values():
            put(entry)
    assert dict(verify(tmp_path / "store.squashfs"))["layers"].startswith(f"{len(specs) + 1} tars")


# --- hostile metadata


def podman_store(tmp_path: Path) -> Store:
    with stored_images(tmp_path) as (app, data):
        made = identity((replace(app, manifest=pinned()), data), engine="podman", driver="overlay")
        return Store("podman", made.to_json(), *streams(made))


Change = Callable[[Entries], object]
HOME = f"overlay-images/{APP_IMAGE.config_digest[7:]}"
HOSTILE: dict[str, tuple[Change, str]] = {
    "a manifest of other bytes": (lambda entries: rewrite(entries, f"{HOME}/manifest", lambda data: data + b" "), "store.json says"),
    "no manifest": (lambda entries: entries.pop(f"{HOME}/manifest"), "has no file"),
    "an endless manifest": (lambda entries: rewrite(entries, f"{HOME}/manifest", lambda data: b" " * (5 << 20)), "more than the"),
    "a manifest that is a directory": (
        lambda entries: edit(entries, f"{HOME}/manifest", kind=Kind.DIRECTORY, content=None),
        "has no file",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_pinned_manifest_must_be_what_store_json_says(tmp_path: Path, case: str) -> None:
    change, says = HOSTILE[case]
    store = podman_store(tmp_path)
    entries = entries_of(store.tar)
    change(entries)
    with pytest.raises((BrokenLink, StoreUnreadable), match=says):
        store.holds(entries)


@pytest.mark.parametrize("value", ["sha256:" + "0" * 64, 5, None, "", "\x1b[31m"])
def test_another_manifest_digest_in_store_json_is_a_broken_link(tmp_path: Path, value: object) -> None:
    store = podman_store(tmp_path)
    document = json.loads(store.store_json)
    for image in document["images"]:
        if "manifest" in image:
            image["manifest"] = value
    with as_file(store.tar) as tar, pytest.raises((BrokenLink, StoreUnreadable)) as caught:
        verify_store(TarView("store.tar", tar), json.dumps(document).encode(), Limits(), SILENT)
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id":1}]', "[" * 100_000, '[{"diff-size":-1}]', "null"])
def test_inspect_says_that_layers_json_is_none(tmp_path: Path, text: str) -> None:
    store = podman_store(tmp_path)
    entries = entries_of(store.tar)
    rewrite(entries, "overlay-layers/layers.json", lambda data: text.encode())
    (tmp_path / "store.json").write_bytes(store.store_json)
    write_tar(entries.values(), tmp_path / "store.tar")
    with pytest.raises(Refused):
        inspect_thing(str(tmp_path / "store.tar"), None, Limits())
    with pytest.raises((BrokenLink, NotVerifiable)):
        verify(tmp_path / "store.tar")


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_store_with_a_random_byte_changed_ends_in_one_clear_error(store: Store, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(store.tar) - 1025))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(store.tar)
    changed[position] ^= 1 << bit
    with as_file(bytes(changed)) as tar:
        try:
            verify_store(TarView("store.tar", tar), store.store_json, Limits(), SILENT)
        except (Refused, BrokenLink):
            return
    # Only bytes that no reader looks at may change: padding behind a file, unused header fields.
    assert list(parts(bytes(changed))) == list(parts(store.tar))


def parts(tar: bytes) -> Iterator[tuple[object, ...]]:
    for path, entry in entries_of(tar).items():
        yield path, replace(entry, content=None), data_of(entry) if entry.content else None


def test_the_order_in_which_images_were_asked_for_is_no_part_of_the_metadata(store: Store, tmp_path: Path) -> None:
    engine, driver = (json.loads(store.store_json)[key] for key in ("engine", "driver"))
    with stored_images(tmp_path) as (app, data):
        one, other = (entries_of(streams(identity(images, engine=engine, driver=driver))[1]) for images in ((app, data), (data, app)))
    assert one == other


def test_hard_links_in_a_layer_verify_where_the_first_name_is_gone(tmp_path: Path) -> None:
    """vfs: the only name left in the upper tree leads to a name that the upper tree has no longer."""
    specs = [ImageSpec([build([file("a", b"x" * 5000), hardlink("z", "a")]), build([file(".wh.a")])], ["l:1"])]
    with stored_images(tmp_path, specs) as images:
        made = identity(images, driver="vfs")
        sealed, tar = streams(made)
    with as_file(tar) as opened:
        verify_store(TarView("store.tar", opened), made.to_json(), Limits(), SILENT)
    with open_sink(SquashfsOptions(level=1, epoch=EPOCH), tmp_path / "store.squashfs") as put:
        for entry in entries_of(sealed).values():
            put(entry)
    verify(tmp_path / "store.squashfs")


def test_podman_s_layers_have_ids_of_their_own() -> None:
    assert not set(layer_ids(DATA_IMAGE.diff_ids)[1:]) & {one[7:] for one in chain_ids(tuple(DATA_IMAGE.diff_ids))[1:]}
