"""Which images a device takes: the order of containerd's ``platforms.Only`` inside one architecture."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from archives import ImageSpec, IndexSpec, docker_archive, oci_layout
from hypothesis import given
from hypothesis import strategies as st
from layertar import build, item
from openedsources import opened, refusal
from requirement import require
from shiplap.core.platform import Platform, best_match, parse_platform
from shiplap.core.sources.selection import NotInSource, best_of


def accepted(text: str) -> list[str]:
    return [str(one) for one in parse_platform(text).accepted]


# From containerd/platforms, compare.go ("Only"), less the other architectures that it falls back to.
ORDERS = {
    "linux/arm": ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
    "linux/arm/v8": ["linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
    "linux/arm/7": ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
    "linux/armhf": ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
    "linux/armel": ["linux/arm/v6", "linux/arm/v5"],
    "linux/arm/v5": ["linux/arm/v5"],
    "linux/arm/v4": ["linux/arm/v4"],
    "linux/arm64": ["linux/arm64"],
    "linux/aarch64/v8": ["linux/arm64"],
    "linux/arm64/v8.2": ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64"],
    "linux/arm64/v9": [
        "linux/arm64/v9",
        *("linux/arm64/v8.5", "linux/arm64/v8.4", "linux/arm64/v8.3", "linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64"),
    ],
    "linux/amd64": ["linux/amd64"],
    "linux/x86_64/v1": ["linux/amd64"],
    "linux/amd64/v3": ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
    "linux/386": ["linux/386"],
    "linux/riscv64": ["linux/riscv64"],
    "linux/riscv64/rva23u64": ["linux/riscv64/rva23u64"],
    "linux/mips64le/hardfloat": ["linux/mips64le/hardfloat"],
}


@pytest.mark.parametrize("wanted", ORDERS)
def test_a_device_takes_its_own_variant_and_then_the_older_ones(wanted: str) -> None:
    assert accepted(wanted) == ORDERS[wanted]


def test_armv9_runs_what_armv8_of_its_time_runs_and_no_more() -> None:
    assert accepted("linux/arm64/v9.1")[:4] == ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64/v8.5"]
    assert accepted("linux/arm64/v9.7")[7:10] == ["linux/arm64/v9", "linux/arm64/v8.9", "linux/arm64/v8.8"]


@pytest.mark.parametrize(
    "wanted", ["linux/arm/v99999999999999999999", "linux/amd64/v1000", "linux/arm64/v8.10", "linux/arm64/v10", "linux/arm/vv7"]
)
def test_a_variant_of_an_unknown_form_takes_only_itself(wanted: str) -> None:
    assert accepted(wanted) == [wanted]


PLATFORMS = st.builds(
    Platform,
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(["amd64", "x86_64", "386", "arm", "arm64", "aarch64", "riscv64"]),
    st.sampled_from(["", "v1", "v2", "v3", "v5", "v6", "7", "v7", "v8", "v8.1", "v9", "v9.2", "odd"]),
)


@given(PLATFORMS, PLATFORMS, PLATFORMS)
def test_taking_is_reflexive_transitive_and_never_leaves_the_architecture(one: Platform, two: Platform, three: Platform) -> None:
    assert one.accepts(one) and one.accepts(one.normalised)
    if one.accepts(two):
        assert (one.normalised.os, one.normalised.architecture) == (two.normalised.os, two.normalised.architecture)
        assert not two.accepts(one) or one.matches(two)
        if two.accepts(three):
            assert one.accepts(three)


@given(PLATFORMS, st.lists(st.none() | PLATFORMS, max_size=8))
def test_the_best_match_is_taken_by_the_device_and_nothing_before_or_better_is(wanted: Platform, available: list[Platform | None]) -> None:
    position = best_match(wanted, available)
    suitable = [one for one in available if one is not None and wanted.accepts(one)]
    if position is None:
        assert suitable == []
        return
    best = available[position]
    assert best is not None and wanted.accepts(best)
    # What is better would take what was chosen, and is not the same.
    assert not any(one.accepts(best) and not one.matches(best) for one in suitable)
    assert not any(one is not None and one.matches(best) for one in available[:position])
    if any(one.matches(wanted) for one in suitable):
        assert best.matches(wanted)


# --- in sources

LAYERS = {variant: build([item(f"for-{variant}")]) for variant in ("v5", "v6", "v7", "v8")}


def arm(variant: str) -> ImageSpec:
    return ImageSpec([LAYERS[variant]], platform=f"linux/arm/{variant}")


@pytest.mark.parametrize("side_by_side", [False, True], ids=["index", "side by side"])
def test_the_best_of_the_variants_is_taken_whatever_their_order(tmp_path: Path, side_by_side: bool) -> None:
    for number, order in enumerate((["v5", "v6", "v8"], ["v8", "v6", "v5"], ["v6", "v5", "v8"])):
        layout = tmp_path / str(number)
        images = [arm(one) for one in order]
        if side_by_side:
            oci_layout(layout, [IndexSpec([one], ["app:1"]) for one in images])
        else:
            oci_layout(layout, [IndexSpec(images, ["app:1"])])
        for asked, given_variant in (("linux/arm/v8", "v8"), ("linux/arm/v7", "v6"), ("linux/arm", "v6"), ("linux/arm/v5", "v5")):
            with opened(f"oci:{layout}", asked) as (image,):
                assert str(image.platform) == f"linux/arm/{given_variant}"


def test_a_newer_variant_is_never_taken_and_the_message_lists_what_there_is(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec([arm("v7"), arm("v8")], ["app:1"])])
    error = refusal(f"oci:{tmp_path}/layout", "linux/arm/v6")
    assert "not for linux/arm/v6; it is for linux/arm/v7, linux/arm/v8" in error.message


def test_another_architecture_that_the_processor_runs_is_named_but_not_taken(tmp_path: Path) -> None:
    """Docker pulls linux/386 for linux/amd64; a store declared for one must not hold the other by chance."""
    oci_layout(tmp_path / "layout", [IndexSpec([ImageSpec([LAYERS["v5"]], platform="linux/386"), arm("v7")], ["app:1"])])
    error = refusal(f"oci:{tmp_path}/layout", "linux/amd64")
    assert "not for linux/amd64; it is for linux/386, linux/arm/v7" in error.message
    assert error.hint == "amd64 runs 386 programs too, but it is another platform: ask for linux/386"
    error = refusal(f"oci:{tmp_path}/layout", "linux/arm64")
    assert error.hint == "arm64 runs arm programs too, but it is another platform: ask for linux/arm/v7"


def test_a_config_without_a_variant_suits_every_variant_where_no_index_says_more(tmp_path: Path) -> None:
    """As for Docker (OnlyPlatformWithFallback): the configs of many images for arm/v6 name none."""
    path = docker_archive(tmp_path / "app.tar", [ImageSpec([LAYERS["v6"]], ["app:1"], platform="linux/arm")])
    for asked in ("linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"):
        with opened(f"docker-archive:{path}", asked) as (image,):
            assert image.platform == Platform("linux", "arm")
    refusal(f"docker-archive:{path}", "linux/arm64")


def test_one_that_names_its_variant_comes_before_one_that_does_not(tmp_path: Path) -> None:
    images = [IndexSpec([one], ["app:1"], declared=[None]) for one in (ImageSpec([LAYERS["v8"]], platform="linux/arm"), arm("v5"))]
    oci_layout(tmp_path / "layout", images)
    with opened(f"oci:{tmp_path}/layout", "linux/arm/v6") as (image,):
        assert str(image.platform) == "linux/arm/v5"


def test_images_of_one_source_may_be_for_different_variants_of_the_device(tmp_path: Path) -> None:
    oci_layout(tmp_path / "layout", [IndexSpec([arm("v6")], ["old:1"]), IndexSpec([arm("v7")], ["new:1"])])
    with opened(f"oci:{tmp_path}/layout", "linux/arm/v7") as images:
        assert [str(image.platform) for image in images] == ["linux/arm/v6", "linux/arm/v7"]
    assert "several platforms: linux/arm/v6, linux/arm/v7" in refusal(f"oci:{tmp_path}/layout").message


# --- plain descriptors, as a registry's client has them


def test_an_index_is_chosen_from_by_its_descriptors_alone() -> None:
    available = [None, parse_platform("linux/arm/v6"), parse_platform("linux/arm64/v8"), parse_platform("windows/amd64")]
    assert best_of(available, parse_platform("linux/arm/v7"), "app:1") == 1
    assert best_of(available, parse_platform("linux/arm64"), "app:1") == 2
    with pytest.raises(NotInSource, match=r"^app:1 has no image for linux/amd64; it has linux/arm/v6, linux/arm64/v8, windows/amd64$"):
        best_of(available, parse_platform("linux/amd64"), "app:1")
    with pytest.raises(NotInSource, match="app:1 has images for several platforms: linux/arm/v6, linux/arm64/v8, windows/amd64"):
        best_of(available, None, "app:1")
    assert best_of([available[3], available[1]], None, "app:1") == 1
    with pytest.raises(NotInSource, match="windows/amd64 is not a platform for shiplap"):
        best_of(available, parse_platform("windows/amd64"), "app:1")


# --- beside skopeo (containers/image), which goes down the same variants


def skopeo_choice(layout: Path, out: Path, architecture: str, variant: str) -> str | None:
    """The variant that skopeo takes from the index, None when it takes nothing."""
    command = ["skopeo", "--override-os=linux", f"--override-arch={architecture}", f"--override-variant={variant}"]
    done = subprocess.run([*command, "--insecure-policy", "copy", f"oci:{layout}:app", f"dir:{out}"], capture_output=True, text=True)
    if done.returncode:
        assert "no image found in" in done.stderr
        return None
    manifest = json.loads((out / "manifest.json").read_bytes())
    config = json.loads((out / manifest["config"]["digest"].partition(":")[2]).read_bytes())
    return str(config.get("variant", ""))


@pytest.mark.parametrize(
    ("architecture", "there", "asked"),
    [
        ("arm", ["v5", "v6", "v7"], ["v8", "v7", "v6", "v5"]),
        ("arm", ["v6", "v8"], ["v8", "v7", "v6", "v5"]),
        ("arm64", ["v8"], ["v8"]),
        ("amd64", ["v2", "v3"], ["v2", "v3", "v4"]),
    ],
)
def test_skopeo_chooses_the_same(tmp_path: Path, architecture: str, there: list[str], asked: list[str]) -> None:
    require("skopeo")
    images = [ImageSpec([build([item(one)])], platform=f"linux/{architecture}/{one}") for one in there]
    oci_layout(tmp_path / "layout", [IndexSpec(images, ["app"])])
    available = [parse_platform(spec.platform) for spec in images]
    for variant in asked:
        position = best_match(Platform("linux", architecture, variant), available)
        ours = None if position is None else there[position]
        theirs = skopeo_choice(tmp_path / "layout", tmp_path / f"out-{variant}", architecture, variant)
        if (architecture, variant) == ("amd64", "v4"):
            assert (ours, theirs) == ("v3", None)  # it knows no order of amd64's variants
        else:
            assert ours == theirs


def test_where_skopeo_differs_it_is_about_what_no_variant_means(tmp_path: Path) -> None:
    """For it ``arm`` means any, newest first; for containerd, Docker and us it means ``arm/v7``."""
    require("skopeo")
    oci_layout(tmp_path / "layout", [IndexSpec([arm("v8"), arm("v7")], ["app"])])
    assert best_match(parse_platform("linux/arm"), [parse_platform(f"linux/arm/{one}") for one in ("v8", "v7")]) == 1
    assert skopeo_choice(tmp_path / "layout", tmp_path / "out", "arm", "") == "v8"
