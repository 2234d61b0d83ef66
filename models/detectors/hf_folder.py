"""A model folder as transformers writes it: looked at before transformers reads it, and read without running anything.

transformers fills what is missing with random numbers and unpickles what is not safetensors. Neither happens here: only
.safetensors are taken, code in the folder is never run, and tensors that do not fit the configuration are an error.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.names import nearest, shortened

_MAX_CONFIG_BYTES = 4 << 20
"""Of config.json; one with the names of 22,000 classes has 1.5 MB."""

_MAX_TEXT_BYTES = 128 << 20
"""Of any other JSON or text of the folder; the largest published tokenizer.json has 35 MB."""

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ckpt")
_NAMED = 5
"""Tensors that an error names; more are counted."""


def is_folder(model: str) -> bool:
    """Whether this is a folder of this machine; otherwise it is the id of a model on a hub.

    Raises:
        InputError: it can be neither: a path where there is no folder.
    """
    if Path(model).expanduser().is_dir():
        return True
    if model.startswith(("/", ".", "~")) or "://" in model or model.count("/") > 1:
        raise InputError(
            f"hf:{shortened(model, 200)}: there is no folder there; give one that transformers saved, or "
            "ORGANISATION/NAME of a model on the hub"
        )
    return False


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, after a look at whether the rest of what a detector needs is there.

    Args:
        folder: on this machine.

    Raises:
        InputError: something is missing, too large or not what transformers writes; names the folder and the file.
    """
    config = _json(folder / "config.json", _MAX_CONFIG_BYTES)
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{folder / 'config.json'}: has no model_type; copy the folder again")
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        why = f" ({others[0]} can hold code and is not read: save it again as safetensors)" if others else ""
        raise InputError(f"{folder}: has no .safetensors with the weights{why}")
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise InputError(f"{folder}: has no preprocessor_config.json, which says how images are prepared")
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and path.is_file() and path.stat().st_size > _MAX_TEXT_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes, more than {_MAX_TEXT_BYTES:,}; copy it again")
    return config


def load_network(model: str, revision: str, auto: str, known: dict[str, str]) -> tuple[Any, Any]:
    """The network of a folder or of a hub in float32 and evaluation mode, and its processor.

    Args:
        model: the folder or the id.
        revision: of a hub: branch, tag or commit; "": the newest.
        auto: which of transformers' auto classes, such as `AutoModelForObjectDetection`.
        known: model types that it has, and their classes.

    Returns:
        The network and the processor.

    Raises:
        InputError: not such a network, or tensors that do not fit its configuration; one line.
        MissingPackage: a package is missing.
        OSError: the hub could not be reached.
    """
    import torch
    import transformers

    where = {"revision": revision} if revision else {}
    safe: dict[str, Any] = {**where, "trust_remote_code": False, "local_files_only": is_folder(model)}
    with one_line(model):
        config = transformers.AutoConfig.from_pretrained(model, **safe)
        _without_downloads(config)
        kind = getattr(transformers, auto)
        processor = _processor(model, config, safe)
        network, report = kind.from_pretrained(
            model,
            config=config,
            **safe,
            use_safetensors=True,
            dtype=torch.float32,
            # What is missing or of another shape is named below; transformers would draw it at random.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    missing = sorted(report["missing_keys"])
    shapes = sorted(f"{key} {tuple(has)} instead of {tuple(wants)}" for key, has, wants in report["mismatched_keys"])
    odd = [name for name, value in network.state_dict().items() if not bool(torch.isfinite(value).all())]
    problems = [
        f"{len(names):,} {what}: {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
        for what, names in (("missing", missing), ("of another shape", shapes), ("with NaN or infinity", odd))
        if names
    ]
    if problems:
        raise InputError(f"{model}: its tensors do not fit its config.json: {'; '.join(problems)}")
    return network.eval(), processor


def model_type(model: str, revision: str) -> str:
    """What its config.json calls the network, such as `detr`.

    Raises:
        InputError: see `read_config`.
        MissingPackage: transformers is missing.
        OSError: the hub could not be reached.
    """
    if is_folder(model):
        return str(read_config(Path(model).expanduser())["model_type"])
    import transformers

    with one_line(model):
        where = {"revision": revision} if revision else {}
        return str(transformers.AutoConfig.from_pretrained(model, trust_remote_code=False, **where).model_type)


def require_type(model: str, found: str, known: dict[str, str], what: str) -> None:
    """Refuse a network that does something else.

    Raises:
        InputError: names what it is and what is taken.
    """
    if found not in known:
        advice = nearest(found, known) or f"known: {', '.join(sorted(known))}"
        raise InputError(f"{model}: its model_type is {found[:60]!r}, which is no {what}; {advice}")


@contextlib.contextmanager
def one_line(model: str) -> Iterator[None]:
    """What transformers says at length as one line that names the model; its progress bars are left out."""
    import torch
    import transformers
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    speech: Any = transformers.logging  # its functions are not annotated
    level, bars = speech.get_verbosity(), speech.is_progress_bar_enabled()
    hub_level = hub_logging.get_verbosity()
    speech.set_verbosity_error()
    hub_logging.set_verbosity(logging.ERROR)  # it tells of each of five tries, and the error says the same
    speech.disable_progress_bar()
    try:
        yield
    except (InputError, MissingPackage):
        raise
    except SafetensorError as error:
        raise InputError(f"{model}: a damaged .safetensors, copy it again: {_first(error)}") from None
    except ImportError as error:
        raise MissingPackage(f"{model}: {_first(error)}", name=error.name or "") from error
    except (HfHubHTTPError, OSError) as error:
        if is_folder(model):
            raise InputError(f"{model}: {_first(error)}") from None
        raise InputError(
            f"{model}: no folder of this machine, and the hub gave no model of that name: {_first(error)}; check the "
            "name, or give the path of a folder that transformers saved"
        ) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever its classes make of a file that they did not write
        raise InputError(f"{model}: transformers cannot read it: {type(error).__name__}: {_first(error)}") from None
    finally:
        speech.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            speech.enable_progress_bar()


def _processor(model: str, config: Any, safe: dict[str, Any]) -> Any:
    import transformers

    kind: Any = transformers.AutoProcessor if _has_text(config) else transformers.AutoImageProcessor
    return kind.from_pretrained(model, **safe)


def _has_text(config: Any) -> bool:
    return hasattr(config, "text_config")


def _without_downloads(config: Any) -> None:
    """The weights of the backbone are in the folder; nothing is fetched only to be replaced."""
    for each in filter(None, (config, getattr(config, "backbone_config", None))):
        if getattr(each, "use_pretrained_backbone", False):
            each.use_pretrained_backbone = False


def _first(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return shortened(text, 400) or type(error).__name__


def _json(path: Path, most: int) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent}: has no {path.name}; give a folder that transformers saved")
    if path.stat().st_size > most:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, more than {most:,}, the limit of a configuration")
    try:
        with open(path, "rb") as handle:
            found = json.loads(handle.read(most))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not what transformers writes; copy the folder again")
    return found
