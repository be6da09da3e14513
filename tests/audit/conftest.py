"""Stores to take apart: made once, changed by each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from requirement import require
from storeimages import identity, stored_images, streams
from tampering import Form, Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    with stored_images(tmp_path_factory.mktemp("images")) as images:
        store = identity(images)
        return Made(store.to_json(), *streams(store))


@pytest.fixture(params=["image", "tar"])
def form(request: pytest.FixtureRequest, made: Made, tmp_path: Path) -> Form:
    image = request.param == "image"
    if image:
        require("tar2sqfs")
    return Form(tmp_path, made.store_json, made.sealed if image else made.data_root, image=image)
