"""The tokenizer: what CLIP would not read is refused by name, and the package behind it is asked for by name."""

from __future__ import annotations

import os
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ftfy", reason='needs pip install -e ".[detic]"')

from trackmill.models.clip import tokenize, tokenizer  # noqa: E402
from trackmill.models.weights.errors import MissingPackage  # noqa: E402

START, END = 49406, 49407


def test_only_the_file_of_the_tokenizer_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "open_clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    tokenizer._tokenizer.cache_clear()
    assert tokenize(["a dog"])[0, :5].tolist() == [START, 320, 1929, END, 0]
    assert "open_clip" not in sys.modules and "TOKENIZERS_PARALLELISM" not in os.environ


def test_blanks_capitals_and_entities_are_cleaned() -> None:
    tokens = tokenize(["a dog", "  A   DOG ", "a\tdog", "a cup &amp; saucer", "a cup & saucer"])
    assert torch.equal(tokens[1], tokens[0]) and torch.equal(tokens[2], tokens[0])
    assert torch.equal(tokens[3], tokens[4]) and tokens.dtype == torch.int64


def test_too_long_a_name_is_refused_as_openai_does() -> None:
    fits = "a " + "dog " * 74
    assert tokenize([fits])[0].tolist()[-1] == END
    with pytest.raises(ValueError, match=r"'a dog dog .*….*dog dog dog' is too long for CLIP: 78 tokens"):
        tokenize(["a cat", f"{fits}dog"])


def test_marks_of_start_and_end_are_no_text() -> None:
    with pytest.raises(ValueError, match=r"'a <end_of_text> dog' holds CLIP's own mark"):
        tokenize(["a <end_of_text> dog"])


@pytest.mark.parametrize("missing", ["open_clip", "ftfy", "torch"])
def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    tokenizer._tokenizer.cache_clear()
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    if missing != "open_clip":
        monkeypatch.setitem(sys.modules, missing, None)
    else:
        monkeypatch.setattr(tokenizer, "_PACKAGE", "open_clip_that_is_not_here")
    with pytest.raises(MissingPackage, match=r'pip install -e "\.\[detic\]"'):
        tokenize(["a dog"])
    tokenizer._tokenizer.cache_clear()
