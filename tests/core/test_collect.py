"""From image requests to the images of a store: arguments, names, pins, and what cannot be together."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import ImageSpec, IndexSpec, docker_archive, oci_layout
from layertar import build, item
from shiplap.core.collect import PinMismatch, RequestRefused, collected_images, parse_argument
from shiplap.core.errors import Refused
from shiplap.core.limits import Limits
from shiplap.core.manifest import ImageRequest
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.store.model import StoredImage, StoreRefused

LAYER = build([item("f", data=b"1")])
APP = ImageSpec([LAYER], tags=["app:1"])
DB = ImageSpec([LAYER, build([item("g", data=b"2")])], tags=["db:1", "db:latest"])
ARM = ImageSpec([LAYER], tags=["app:arm"], platform="linux/arm64")


def collect(*requests: ImageRequest, platform: str | None = None, folder: Path = Path("/nowhere")) -> tuple[StoredImage, ...]:
    wanted = parse_platform(platform) if platform else None
    with collected_images(requests, wanted, Limits(), folder) as images:
        return images


def request(text: str, **pins: str) -> ImageRequest:
    asked = parse_argument(text)
    return ImageRequest(asked.ref, asked.source, digest=pins.get("digest"), config_digest=pins.get("config_digest"))


def names(stored: StoredImage) -> list[str]:
    return [str(reference) for reference in stored.references]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    return f"docker-archive:{docker_archive(tmp_path / 'one.tar', [APP])}"


@pytest.fixture
def both(tmp_path: Path) -> str:
    return f"docker-archive:{docker_archive(tmp_path / 'both.tar', [APP, DB])}"


@pytest.fixture
def layout(tmp_path: Path) -> str:
    return f"oci:{oci_layout(tmp_path / 'layout', [APP])}"


# --- arguments


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("docker-archive:app.tar", None, "docker-archive:app.tar"),
        ("app=docker-archive:app.tar", "docker.io/library/app:latest", "docker-archive:app.tar"),
        ("app:1=oci:dir:tag", "docker.io/library/app:1", "oci:dir:tag"),
        ("me/app:1=docker-archive:a=b.tar", "docker.io/me/app:1", "docker-archive:a=b.tar"),
        ("reg.example:5000/me/app:1=docker-archive:app.tar", "reg.example:5000/me/app:1", "docker-archive:app.tar"),
        ("localhost:5000/app=docker-archive:app.tar", "localhost:5000/app:latest", "docker-archive:app.tar"),
        ("app@sha256:" + "1" * 64 + "=oci:dir", "docker.io/library/app@sha256:" + "1" * 64, "oci:dir"),
        ("docker-archive:a=b.tar", None, "docker-archive:a=b.tar"),
        ("docker-archive:/x/y=z.tar:app:1", None, "docker-archive:/x/y=z.tar:app:1"),
        ("oci:a=b", None, "oci:a=b"),
        ("docker://reg/app=1", None, "docker://reg/app=1"),
        ("dir:/a=b", None, "dir:/a=b"),
        ("app:1", None, "app:1"),
    ],
)
def test_an_argument_is_a_source_perhaps_with_a_name(text: str, name: str | None, source: str) -> None:
    asked = parse_argument(text)
    assert (str(asked.ref) if asked.ref else None, asked.source) == (name, source)


@pytest.mark.parametrize("text", ["=docker-archive:a.tar", "app=", "="])
def test_half_an_argument_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestRefused, match=r"is not NAME=SOURCE") as caught:
        parse_argument(text)
    assert "app:1=docker-archive:app.tar" in (caught.value.hint or "")


def test_a_name_that_is_no_reference_is_refused() -> None:
    with pytest.raises(Refused):
        parse_argument("UPPER=docker-archive:a.tar")


# --- names


def test_without_a_name_an_archive_s_own_tags_are_used(both: str) -> None:
    app, db = collect(request(both))
    assert names(app) == ["docker.io/library/app:1"]
    assert names(db) == ["docker.io/library/db:1", "docker.io/library/db:latest"]
    assert [one.image.config_digest for one in (app, db)] == [APP.config_digest, DB.config_digest]


def test_a_name_replaces_the_archive_s_own(archive: str) -> None:
    (app,) = collect(request(f"other:2={archive}"))
    assert names(app) == ["docker.io/library/other:2"]
    assert app.image.label == "docker.io/library/other:2", "messages speak the user's language"


def test_a_name_for_several_images_is_refused_with_the_way_out(both: str) -> None:
    with pytest.raises(
        RequestRefused, match=r"holds 2 images, and docker.io/library/other:2 can be only one of them: .*app:1.*db:1"
    ) as caught:
        collect(request(f"other:2={both}"))
    assert (caught.value.hint or "").startswith("say which: docker-archive:") and (caught.value.hint or "").endswith(":REF")
    (db,) = collect(request(f"other:2={both}:db:1"))
    assert db.image.config_digest == DB.config_digest


def test_an_image_without_any_name_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "anonymous.tar", [ImageSpec([LAYER])])
    with pytest.raises(RequestRefused, match=r"anonymous.tar holds an image without a name") as caught:
        collect(request(f"docker-archive:{path}"))
    assert f"NAME=docker-archive:{path}" in (caught.value.hint or "")
    assert str(tmp_path) not in caught.value.message


def test_nothing_asked_for_is_refused() -> None:
    with pytest.raises(RequestRefused, match=r"no image was asked for"):
        collect()


def test_an_image_asked_for_twice_is_one_image_with_both_names(archive: str, both: str) -> None:
    first, second = collect(request(f"z:1={archive}"), request(both))
    assert names(first) == ["docker.io/library/app:1", "docker.io/library/z:1"]
    assert names(second)[0] == "docker.io/library/db:1"


def test_one_name_for_two_images_is_refused(both: str) -> None:
    with pytest.raises(StoreRefused, match=r"docker.io/library/x:1 is asked for twice, for sha256:.* and for sha256:"):
        collect(request(f"x:1={both}:app:1"), request(f"x:1={both}:db:1"))


def test_a_name_with_tag_and_digest_is_two_names_on_the_device(layout: str) -> None:
    (found,) = collect(request(layout))
    digest = found.image.manifest_digest
    (app,) = collect(request(f"app:1@{digest}={layout}"))
    assert names(app) == ["docker.io/library/app:1", f"docker.io/library/app@{digest}"]
    (app,) = collect(request(f"app:1={layout}", digest=str(digest)))
    assert names(app) == ["docker.io/library/app:1", f"docker.io/library/app@{digest}"]
    (app,) = collect(request(f"app@{digest}={layout}"))
    assert names(app) == [f"docker.io/library/app@{digest}"]
    (app,) = collect(request(f"app:1={layout}"))
    assert names(app) == ["docker.io/library/app:1"], "a digest is written only when somebody named it"


# --- pins


def test_a_config_digest_pins_any_source(archive: str, layout: str) -> None:
    for source in (archive, layout):
        assert len(collect(request(f"app:1={source}", config_digest=APP.config_digest))) == 1
        with pytest.raises(PinMismatch, match=f"has config digest {APP.config_digest}, `config-digest` asks for sha256:1111") as caught:
            collect(request(f"app:1={source}", config_digest="sha256:" + "1" * 64))
        assert "another image" in (caught.value.hint or "")


def test_a_digest_pins_manifest_and_index(tmp_path: Path) -> None:
    layout = f"oci:{oci_layout(tmp_path / 'index', [IndexSpec([APP], tags=['app:1'])])}"
    (found,) = collect(request(layout))
    assert found.image.manifest_digest and found.image.index_digest
    for digest in (found.image.manifest_digest, found.image.index_digest):
        assert len(collect(request(f"app:1={layout}", digest=digest))) == 1
    with pytest.raises(PinMismatch, match=r"asked for is sha256:1111"):
        collect(request(f"app:1={layout}", digest="sha256:" + "1" * 64))
    with pytest.raises(PinMismatch, match=r"asked for is sha256:1111"):
        collect(request(f"app:1@sha256:{'1' * 64}={layout}"))


def test_a_digest_that_a_source_cannot_prove_is_refused_with_the_way_out(archive: str) -> None:
    with pytest.raises(PinMismatch, match=r"nothing in it proves the digest") as caught:
        collect(request(f"app:1={archive}", digest="sha256:" + "1" * 64))
    assert APP.config_digest in (caught.value.hint or "")


def test_a_pin_on_several_images_must_hold_for_each(both: str) -> None:
    with pytest.raises(PinMismatch):
        collect(request(both, config_digest=APP.config_digest))


# --- paths


def test_a_relative_path_begins_at_the_manifest_s_folder_or_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    docker_archive(tmp_path / "here/app.tar", [APP])
    written = ImageRequest(parse_reference("app:1"), "docker-archive:here/app.tar", line=3)
    assert len(collect(written, folder=tmp_path)) == 1
    with pytest.raises(Refused):
        collect(request("app:1=docker-archive:here/app.tar"), folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(collect(request("app:1=docker-archive:here/app.tar"), folder=tmp_path / "elsewhere")) == 1


# --- platforms


def test_a_platform_chooses_and_a_wrong_one_is_refused(archive: str) -> None:
    assert len(collect(request(archive), platform="linux/amd64")) == 1
    with pytest.raises(Refused, match=r"linux/arm64"):
        collect(request(archive), platform="linux/arm64")


def test_the_images_can_be_read_only_inside_the_context(tmp_path: Path, archive: str) -> None:
    with collected_images([request(archive)], None, Limits(), Path()) as (app,):
        held = app.image.layers[0].blob.slice()
        assert held is not None and b"".join(held.chunks()) == LAYER
    with pytest.raises((OSError, ValueError, EOFError)):
        b"".join(held.chunks())
