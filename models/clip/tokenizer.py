"""CLIP's tokenizer: texts as numbers of byte pairs, by the package open_clip_torch (MIT), which has the table."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trackmill.models.weights.errors import MissingPackage
from trackmill.schemas.errors import InputError
from trackmill.schemas.install import install
from trackmill.schemas.names import shortened

if TYPE_CHECKING:
    import torch

_PACKAGE = "open_clip"
_ALONE = "trackmill_open_clip_tokenizer"
_MISSING = f"names of classes need CLIP's tokenizer: {install('detic')}"


def tokenize(texts: Sequence[str], context: int = 77) -> torch.Tensor:
    """Texts as CLIP reads them: in small letters, blanks joined, broken characters mended.

    Args:
        texts: N of them.
        context: T, how many tokens CLIP reads.

    Returns:
        (N, T) int64: the start token, those of the text, the end token, zeros.

    Raises:
        InputError: a text is longer, which OpenAI's own code refuses too (open_clip cuts it), or holds the start or end
            token; names it.
        MissingPackage: open_clip_torch is not installed; says what to type.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(_MISSING) from error

    tokenizer = _tokenizer()
    tokens = torch.zeros(len(texts), context, dtype=torch.int64)
    for row, text in enumerate(texts):
        numbers = tokenizer.encode(text)
        shown = shortened(text, 80)
        if len(numbers) + 2 > context:
            raise InputError(
                f"{shown!r} is too long for CLIP: {len(numbers) + 2} tokens with start and end, and it reads "
                f"{context}; shorten the name"
            )
        if any(number >= tokenizer.sot_token_id for number in numbers):
            raise InputError(f"{shown!r} holds CLIP's own mark for the start or end of a text; leave it out")
        tokens[row, : len(numbers) + 2] = torch.tensor([tokenizer.sot_token_id, *numbers, tokenizer.eot_token_id])
    return tokens


@functools.cache
def _tokenizer() -> Any:
    """The one of OpenAI's models."""
    return _module().SimpleTokenizer()


def _module() -> ModuleType:
    """open_clip's file with the tokenizer, alone: the whole package takes seconds, for models that nobody uses here."""
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.tokenizer")
    package = importlib.util.find_spec(_PACKAGE)  # of a package that is not inside another, this imports nothing
    if package is None or package.origin is None:
        raise MissingPackage(_MISSING)
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    try:
        file = Path(package.origin).with_name("tokenizer.py")
        spec = importlib.util.spec_from_file_location(_ALONE, file) if file.is_file() else None
        if spec is None or spec.loader is None:  # of another version
            return importlib.import_module(f"{_PACKAGE}.tokenizer")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_ALONE] = module
        spec.loader.exec_module(module)
        return module
    except ImportError as error:
        sys.modules.pop(_ALONE, None)
        raise MissingPackage(f"{_MISSING} ({error})") from error
    finally:
        # It is set on import, for another library's sake, and would be inherited by every process that is started.
        if before is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
