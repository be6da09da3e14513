"""store.json: what was changed in it is found elsewhere in the store, and nothing in it makes the reader stumble."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memorytar import as_file
from requirement import require
from shiplap.audit.chain import verify_store
from shiplap.audit.links import BrokenLink
from shiplap.audit.storeview import TarView
from shiplap.audit.verify import NotVerifiable
from shiplap.core.errors import ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from storeimages import EPOCH
from tampering import Form, Made, rewrite, verify

# --- store.json


def rejson(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def rewritten(text: bytes) -> bytes:
        document = json.loads(text)
        change(document)
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    return rewritten


STORE_JSON: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another epoch": (rejson(lambda d: d.update(epoch=EPOCH + 1)), "has mtime epoch"),
    "a negative epoch": (rejson(lambda d: d.update(epoch=-1)), "has mtime epoch"),
    "an absurd epoch": (rejson(lambda d: d.update(epoch=10**40)), "has mtime epoch"),
    "another platform": (rejson(lambda d: d.update(platform="linux/arm64")), "store.json says linux/arm64, .* is for linux/amd64"),
    "another name": (rejson(lambda d: d["images"][0].update(references=["docker.io/library/evil:1"])), "repositories.json"),
    "an image too few": (rejson(lambda d: d["images"].pop()), "missing|another content|belongs to no image"),
    "an image twice": (rejson(lambda d: d["images"].append(d["images"][0])), "not in its canonical form"),
    "one name for two images": (rejson(lambda d: d["images"][0].update(references=d["images"][1]["references"])), "is asked for twice"),
    "another diffID": (rejson(lambda d: d["images"][0]["layers"][0].update(diffID="sha256:" + "0" * 64)), "lists other layers"),
    "another chainID": (rejson(lambda d: d["images"][0]["layers"][-1].update(chainID="sha256:" + "0" * 64)), "lists other layers"),
    "a layer too few": (rejson(lambda d: d["images"][0]["layers"].pop()), "lists other layers"),
    "another config": (rejson(lambda d: d["images"][0].update(config="sha256:" + "0" * 64)), "is missing"),
    "blanks": (lambda text: text.replace(b",", b", "), "canonical"),
    "a second line": (lambda text: text + b"\n", "canonical"),
    "another order": (lambda text: json.dumps(dict(reversed(json.loads(text).items()))).encode() + b"\n", "canonical"),
    "escapes": (lambda text: text.replace(b"docker", b"d\\u006fcker"), "canonical"),
}  # fmt: skip


@pytest.mark.parametrize("case", STORE_JSON)
def test_a_store_json_that_was_changed_everywhere_is_found(form: Form, case: str) -> None:
    change, says = STORE_JSON[case]
    form.store_json = change(form.store_json)
    if form.image:
        rewrite(form.entries, "store.json", change)
    with pytest.raises(BrokenLink, match=says):
        verify(form.write())


def test_another_store_path_is_found_in_the_skeleton(made: Made, tmp_path: Path) -> None:
    require("tar2sqfs")
    form = Form(tmp_path, made.store_json, made.sealed, image=True)
    change = rejson(lambda document: document.update({"store-path": "/evil"}))
    form.store_json = change(form.store_json)
    rewrite(form.entries, "store.json", change)
    with pytest.raises(BrokenLink, match="it should have '/evil/store/layers/"):
        verify(form.write())


def without_images(**changed: object) -> bytes:
    document = {"driver": "overlay2", "engine": "docker", "epoch": 0, "format": 1, "images": [], "mode": "store"}
    return json.dumps({**document, "platform": "linux/amd64", "store-path": "/x", **changed}, sort_keys=True).encode()


def with_image(image: object) -> bytes:
    return without_images(images=[image])


NO_STORES = {
    "no JSON": b"{",
    "a list": b"[]",
    "another format": b'{"format":2}',
    "no epoch": b'{"format":1}',
    "an epoch that is true": b'{"epoch":true,"format":1}',
    "images that are no list": without_images(images=5),
    "images that are texts": with_image("x"),
    "an image without config": with_image({}),
    "a config that is a number": with_image({"config": 5}),
    "a config that climbs": with_image({"config": "sha256:" + "../" * 21 + "x"}),
    "half a surrogate": without_images(evil="\ud800"),
    "another engine": without_images(engine="\x1b[31m"),
    "endless nesting": b"[" * 100_000,
    "nesting just within what can be read": b'{"epoch":0,"format":1,"x":' + b"[" * 900 + b"]" * 900 + b"}",
    "an endless number": b'{"epoch":' + b"9" * 10_000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("case", NO_STORES)
def test_what_is_no_store_json_cannot_be_verified(form: Form, case: str) -> None:
    form.store_json = NO_STORES[case]
    if form.image:
        rewrite(form.entries, "store.json", lambda text: NO_STORES[case])
    with pytest.raises(NotVerifiable):
        verify(form.write())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["config", "layers", "references", "diffID", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ["format", "mode", "engine", "driver", "platform", "store-path", "epoch", "images", "squashfs", "new"]
INNER = ["config", "layers", "references", "diffID", "chainID"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KEYS), st.sampled_from(INNER), JSON, st.booleans())
def test_any_store_json_raises_nothing_but_our_own_errors(made: Made, key: str, inner: str, value: Any, deep: bool) -> None:
    document = json.loads(made.store_json)
    if not deep:
        document[key] = value
    elif inner in ("diffID", "chainID"):
        document["images"][0]["layers"][0][inner] = value
    else:
        document["images"][0][inner] = value
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    with as_file(made.data_root) as tar:
        view = TarView("store.tar", tar)
        try:
            verify_store(view, text, Limits(), SILENT)
        except ShiplapError as error:
            assert error.message.isprintable()
