"""Model folders as transformers writes them: on this machine, or brought here from a hub; and what is in them.

A folder is a model's weights (.safetensors) with the texts that say how it is used. Nothing else is fetched, and
nothing that could hold code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trackmill.pipeline.storage.hub_errors import hub_error
from trackmill.pipeline.storage.names import existing_path
from trackmill.schemas.errors import InputError, MissingPackage, StorageError
from trackmill.schemas.install import install
from trackmill.schemas.names import shortened
from trackmill.schemas.published import BadWeights

_KINDS = (".json", ".safetensors", ".txt", ".model", ".jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model folder on this machine.

    Args:
        path: where it lies.
        sha256: of all files that a model is made of, by their names: 64 hexadecimal digits.
    """

    path: Path
    sha256: str


def fetch_model_folder(model: str, revision: str = "", sha256: str = "") -> ModelFolder:
    """A model folder, and the SHA-256 of what is in it.

    Args:
        model: a folder of this machine, or ORGANISATION/NAME of a model on Hugging Face's hub.
        revision: of the hub: branch, tag or commit; empty: the newest.
        sha256: what it must be; empty: anything.

    Raises:
        BadWeights: another SHA-256.
        InputError: no such folder, and no name of a model either.
        OSError: it could not be fetched.
        MissingPackage: huggingface-hub is missing.
    """
    folder = Path(existing_path(model)).expanduser()
    if not folder.is_dir() and (model.startswith(("/", ".", "~")) or "://" in model or model.count("/") > 1):
        raise InputError(f"{model}: there is no folder there; give one that transformers saved, or a name of the hub")
    path = folder if folder.is_dir() else _from_hub(model, revision)
    found = _digest(path)
    if sha256 and found != sha256:
        raise BadWeights(
            f"{model}: the SHA-256 of its files is {found}, this run was planned with {sha256}: the model differs "
            "between machines or was replaced; put the same folder everywhere, or start a new run"
        )
    return ModelFolder(path=path, sha256=found)


def _from_hub(model: str, revision: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise MissingPackage(
            f"models of the hub need an extra: {install('hf-detectors')} ({error})", name="huggingface_hub"
        ) from error
    try:
        patterns = [f"*{kind}" for kind in _KINDS]
        return Path(snapshot_download(model, revision=revision or None, allow_patterns=patterns))
    except HFValidationError:
        raise InputError(
            f"{model}: no folder of this machine, and no ORGANISATION/NAME of a model on the hub; check the path"
        ) from None
    except Exception as error:
        told = hub_error(error, model)
        if told is not None:
            raise told from error
        if not isinstance(error, OSError):
            raise
        said = shortened(" ".join(str(error).split()), 300)
        raise StorageError(
            f"{model}: no folder of this machine, and the hub gave no model of that name: {said}; check the name, or "
            "give the path of a folder"
        ) from error


def _digest(folder: Path) -> str:
    lines = []
    for path in sorted(folder.iterdir()):
        if path.suffix in _KINDS and path.is_file():
            with open(path, "rb") as handle:
                lines.append(f"{path.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n")
    if not lines:
        raise InputError(f"{folder}: holds no .json and no .safetensors; give a folder that transformers saved")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
