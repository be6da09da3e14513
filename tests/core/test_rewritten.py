"""What a message says when an image is "the same" and has another config digest all the same."""

from __future__ import annotations

import json
from dataclasses import replace

from archiveimages import image
from layertar import item, layer
from shiplap.core.image import Image
from shiplap.core.sources.rewritten import explain, is_rewritten

ONE, TWO, THREE = (layer([item(name)]) for name in ("one", "two", "three"))
WANTED = image([ONE, TWO])
DIFF_IDS = WANTED.diff_ids


def with_config(**changes: object) -> Image:
    config = json.loads(WANTED.config) | changes
    return replace(WANTED, config=json.dumps(config).encode(), config_digest="sha256:" + "9" * 64)


def test_the_digests_are_named_whatever_else_is_known() -> None:
    other = image([ONE], author="x")
    assert explain(WANTED.config_digest, other) == f"the image has config digest {other.config_digest}, expected is {WANTED.config_digest}"
    assert explain(WANTED.config_digest, WANTED) == f"the image has config digest {WANTED.config_digest}, as expected"


def test_the_same_layers_below_another_config_mean_a_conversion() -> None:
    other = image([ONE, TWO], author="somebody else")
    assert is_rewritten(DIFF_IDS, other)
    said = explain(WANTED.config_digest, other, expected_diff_ids=DIFF_IDS)
    assert "all 2 layers are the same (same diffIDs): the image was converted, and the tool that did it wrote the config anew" in said
    assert "the only layer is the same" in explain("x", image([ONE]), expected_diff_ids=image([ONE], author="x").diff_ids)


def test_other_layers_mean_another_image() -> None:
    for tars, said in [
        ([ONE, THREE], "of its 2 layers 1 differ (1, counted from 0): it is another image"),
        ([ONE, TWO, THREE], "it has 3 layers instead of 2, the first 2 of them the same: it is another image"),
        ([THREE], "it has 1 layers instead of 2, the first 0 of them the same: it is another image"),
    ]:
        other = image(tars)
        assert not is_rewritten(DIFF_IDS, other)
        assert said in explain(WANTED.config_digest, other, expected_diff_ids=DIFF_IDS)


def test_keys_that_differ_are_named_when_the_expected_config_is_at_hand() -> None:
    def said(other: Image) -> str:
        return explain(WANTED.config_digest, other, expected_diff_ids=DIFF_IDS, expected_config=WANTED.config)

    assert said(with_config(created="2021-01-01T00:00:00Z", history=[])).endswith("; the configs differ in created, history")
    assert said(with_config(config={"Cmd": ["/bin/other"], "Env": []})).endswith("; the configs differ in config.Cmd, config.Env")
    assert said(with_config(docker_version="20.10")).endswith("; the configs differ in docker_version")
    assert said(with_config()).endswith("only written differently (order of keys, blanks, escapes)")
    assert said(with_config(**{f"key{number:02}": 1 for number in range(20)})).endswith("key07 and 12 more")
    assert said(with_config(**{"a\nb": 1})).endswith("the configs differ in a\\nb")


def test_a_config_that_cannot_be_read_is_no_reason_to_fail() -> None:
    assert explain("x", WANTED, expected_config=b"{").endswith("the configs cannot be compared")
