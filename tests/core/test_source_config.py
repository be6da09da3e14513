"""The image config as the engines read it.

What is refused here was refused by a real `docker load` (20.10), unless a comment says otherwise.
"""

from __future__ import annotations

from typing import Any

import pytest
from archives import ImageSpec, dump, sha256
from layertar import item, layer
from shiplap.core.errors import Refused
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.sources.config import ImageConfig, parse_config

TAR = layer([item("file", data=b"x")])
DIFF_ID = sha256(TAR)


def parse(image: ImageSpec) -> ImageConfig:
    return parse_config(image.config_bytes, what="the config", limits=Limits())


def parse_with(**config: Any) -> ImageConfig:
    return parse(ImageSpec([TAR], config=config))


def test_a_config_gives_identity_platform_layers_and_time() -> None:
    image = ImageSpec([TAR, TAR], platform="linux/arm/v7")
    config = parse(image)
    assert config.raw == image.config_bytes
    assert config.digest == image.config_digest
    assert config.platform == Platform("linux", "arm", "v7")
    assert config.diff_ids == (DIFF_ID, DIFF_ID)
    assert config.created_epoch == 1714564800


def test_an_image_without_layers_is_accepted_as_by_docker_load() -> None:
    assert parse(ImageSpec([])).diff_ids == ()
    assert parse_with(rootfs={"type": "layers"}, history=[]).diff_ids == ()
    assert parse_with(rootfs={"type": "layers", "diff_ids": None}, history=None).diff_ids == ()


@pytest.mark.parametrize(
    ("created", "epoch"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-05-01T12:00:00.999999999Z", 1714564800),
        ("2024-05-01T14:00:00+02:00", 1714564800),
        ("2024-05-01T06:30:00-05:30", 1714564800),
        ("1969-12-31T23:59:59.5Z", -1),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("0000-01-01T00:00:00Z", -62167219200),
        ("9999-12-31T23:59:59-23:59", 253402387139),
        ("2024-02-29T00:00:00Z", 1709164800),
        (None, None),
    ],
)
def test_created_is_read_in_whole_seconds(created: str | None, epoch: int | None) -> None:
    assert parse_with(created=created).created_epoch == epoch


@pytest.mark.parametrize(
    "created",
    [
        "yesterday",
        "",
        5,
        "2024-05-01",
        "2024-05-01T12:00:60Z",
        "2023-02-29T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2024-05-01t12:00:00z",
        # Newer Go is stricter than that of Docker 20.10, which took these.
        "2024-05-01T12:00:00,5Z",
        "2024-05-01T12:00:00+24:00",
        "2024-05-01T12:00:00\u0660Z",
    ],
)
def test_a_time_that_go_cannot_read_is_refused(created: object) -> None:
    with pytest.raises(Refused, match="the config"):
        parse_with(created=created)
    with pytest.raises(Refused, match="the config"):
        parse_with(history=[{"created": created}])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Env", "A=1"),
        ("Env", [1]),
        ("Cmd", {}),
        ("Cmd", [1]),
        ("Entrypoint", 5),
        ("Labels", {"a": 1}),
        ("Labels", []),
        ("ExposedPorts", {"80/tcp": "x"}),
        ("ExposedPorts", ["80"]),
        ("Volumes", ["/v"]),
        ("User", 0),
        ("user", 0),
        ("StopTimeout", "5"),
        ("StopTimeout", 5.0),
        ("StopTimeout", 1 << 63),
        ("Healthcheck", []),
        ("Healthcheck", {"Interval": "5s"}),
        ("Healthcheck", {"Test": "x"}),
        ("Tty", "yes"),
        ("Tty", 1),
        ("OnBuild", "x"),
        ("ArgsEscaped", 1),
    ],
)
def test_a_container_config_of_wrong_types_is_refused(key: str, value: object) -> None:
    with pytest.raises(Refused, match="the config"):
        parse_with(config={key: value})


@pytest.mark.parametrize(
    "config",
    [
        {"Env": [None], "Cmd": "sh", "Entrypoint": ["a", None], "Labels": {"a": None}, "Shell": "sh", "User": None},
        {
            "ExposedPorts": {"80/tcp": None},
            "Volumes": {"/v": {"x": 1}},
            "StopTimeout": -5,
            "Healthcheck": {"Retries": -1, "Test": ["NONE"]},
        },
        {"Unknown": 0},
        {},
        None,
    ],
)
def test_what_docker_load_accepts_is_accepted(config: object) -> None:
    assert parse_with(config=config).diff_ids == (DIFF_ID,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", []),
        ("container_config", []),
        ("container_config", {"Env": 1}),
        ("history", {}),
        ("history", [{"empty_layer": 1}]),
        ("author", 1),
        ("docker_version", 2),
        ("os.features", "x"),
        ("Size", "1"),
        ("os", 1),
        ("architecture", []),
        ("variant", 7),
        ("rootfs", None),
        ("rootfs", []),
        ("rootfs", {"type": "layers", "diff_ids": {}}),
        ("rootfs", {"type": "layers", "diff_ids": [1]}),
        ("rootfs", {"type": "layers", "diff_ids": ["sha256:" + DIFF_ID[7:].upper()]}),
        ("rootfs", {"type": "layers", "diff_ids": [DIFF_ID[7:]]}),
        ("rootfs", {"type": "layers", "diff_ids": [DIFF_ID + "\n"]}),
        ("history", [{}, {}]),
    ],
)
def test_an_image_of_wrong_types_is_refused(key: str, value: object) -> None:
    with pytest.raises(Refused, match="the config"):
        parse_with(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # Docker takes the host's own for these; the specification requires them, and so do we.
        ("os", None),
        ("architecture", None),
        ("os", ""),
        ("os", "linux/../x"),
        ("rootfs", {"diff_ids": [DIFF_ID]}),
        ("rootfs", {"type": "layers+base", "diff_ids": [DIFF_ID]}),
        # Docker knows no other algorithm than sha256 for layers.
        ("rootfs", {"type": "layers", "diff_ids": ["sha512:" + "0" * 128]}),
        # Keys that engines read whatever their case.
        ("OS", "windows"),
        ("RootFS", {}),
    ],
)
def test_what_the_specification_requires_is_required(key: str, value: object) -> None:
    with pytest.raises(Refused, match="the config"):
        parse_with(**{key: value})


def test_empty_layers_in_the_history_are_not_counted() -> None:
    config = parse_with(history=[{"empty_layer": True}] * 9 + [{"empty_layer": False}])
    assert config.diff_ids == (DIFF_ID,)


def test_more_layers_than_an_engine_takes_are_refused_naming_the_limit() -> None:
    assert len(parse(ImageSpec([TAR] * 125)).diff_ids) == 125
    with pytest.raises(Refused, match=r"126 layers.*125.*max depth exceeded"):
        parse(ImageSpec([TAR] * 126))


def test_a_config_over_the_limit_is_refused() -> None:
    raw = dump({"x": "y" * 1000})
    with pytest.raises(Refused, match="allowed for metadata"):
        parse_config(raw, what="the config", limits=Limits(metadata_bytes=1000))
