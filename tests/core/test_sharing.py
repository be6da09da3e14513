"""What images have alone and together."""

from __future__ import annotations

from shiplap.core.sharing import ImageShare, sharing


def test_a_layer_of_one_image_is_its_own_and_one_of_two_is_shared() -> None:
    found = sharing([["base", "app"], ["base", "data"]], {"base": 100, "app": 10, "data": 1})
    assert found.images == (ImageShare(10, 100), ImageShare(1, 100))
    assert (found.unique_bytes, found.saved_bytes) == (111, 100)
    assert [one.total_bytes for one in found.images] == [110, 101]


def test_a_layer_that_an_image_has_twice_counts_once() -> None:
    found = sharing([["x", "y", "x"]], {"x": 5, "y": 1})
    assert found.images == (ImageShare(6, 0),) and found.saved_bytes == 0


def test_sizes_of_other_layers_do_not_count() -> None:
    assert sharing([["x"]], {"x": 5, "z": 7}).unique_bytes == 5
    assert sharing([], {}).images == ()
