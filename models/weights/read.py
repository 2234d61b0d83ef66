"""From a checkpoint file on this machine to tensors by name: `.pth`, `.pt` or `.safetensors`. No code in it runs.

A URL is fetched by `trackmill.pipeline.weights.read_weights`, which `as_checkpoint` asks for by name.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights, MissingPackage
from trackmill.models.weights.metadata import from_header
from trackmill.models.weights.records import DamagedRecord, ShortRecord, check_crcs, check_lengths
from trackmill.models.weights.torchscript import is_torchscript, read_torchscript
from trackmill.schemas.errors import InputError
from trackmill.schemas.install import install, install_package
from trackmill.schemas.published import check_sums, promised_md5, promised_sha256

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("state_dict", "model", "model_state_dict", "ema_state_dict", "model_ema", "ema", "module")
"""Under which of its keys a checkpoint holds the state dict: the first that is there, one inside another too."""

PREFIXES = ("module.", "ema_model.", "model.")
"""What training tools put before every name. Taken off only where all names have it."""

_COMPILED = "_orig_mod."
"""What torch.compile puts into names, at the beginning or, of a part that was compiled, in the middle."""

_COUNTERS = ("n_averaged", "steps")
"""What averaging tools put beside the names."""

_TRAINER_LEFTOVERS = re.compile(
    r"(mmengine|mmcv|mmdet|numpy)\.[\w.]+|(builtins\.)?getattr|_codecs\.encode|argparse\.Namespace"
)
"""What training tools store beside the tensors: mmengine its log, the DETR family its arguments. Read as nothing, see
`_Leftover`."""

MAX_HEADER_BYTES = 16 << 20
"""Of the header of a safetensors file: 100,000 tensors have 10 MB."""

MAX_PICKLE_BYTES = 256 << 20
"""Of what a `.pth` holds beside the values of tensors. mmengine's training logs have some 10 MB."""

_MOST_REPEATED = 64 << 20
"""A tensor of so many bytes may hold fewer, as a broadcast one does."""

_SAVE = "save it again with torch.save(model.state_dict(), path)"


def read_checkpoint(source: str | os.PathLike[str], *, where: str = "", verified: bool = False) -> Checkpoint:
    """Read a file.

    Args:
        source: a path on this machine.
        where: what messages call the file; "" for the path.
        verified: the sums that its name promises (`...-55949c9c.pth`, `sam_vit_h_4b8939.pth`) were compared before.

    Raises:
        BadWeights: damaged, not what its name promises, or it holds more than tensors. A `ValueError`.
        ValueError: a URL.
        FileNotFoundError: there is no such file.
        MissingPackage: torch, or safetensors for a file of that kind, is not installed.
    """
    path = local_path(source)
    where = where or str(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {where}: check the path")
    if not verified:
        _check_sums(path, where)
    with open(path, "rb") as handle:
        start = handle.read(64)
    # By content, since a name may say nothing: a safetensors file starts with a length and a JSON object.
    if start[8:9] == b"{":
        tensors, header = _read_safetensors(path, where)
        return Checkpoint(tensors=state_dict_of(tensors, where), metadata=from_header(header, where), where=where)
    if reason := _no_checkpoint(start):
        raise BadWeights(f"{where}: {reason}")
    return Checkpoint(tensors=state_dict_of(_read_torch(path, where, verified), where), where=where)


def as_checkpoint(weights: str | os.PathLike[str] | Mapping[str, Tensor]) -> Checkpoint:
    """What a caller hands over as `weights`, as a checkpoint.

    Args:
        weights: a path; a URL, which is fetched once into the cache of weights, see
            `trackmill.pipeline.storage.fetched.fetch_weights`; a state dict with or without wrappers; a checkpoint.

    Raises:
        BadWeights, FileNotFoundError, MissingPackage: see `read_checkpoint`.
        OSError: the URL could not be fetched; the text names it without its credentials.
    """
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, Mapping):
        return Checkpoint(tensors=state_dict_of(weights))
    if is_url(weights):
        # By name, when one is asked for: fetching is storage's, and models import nothing of it.
        fetched: Checkpoint = importlib.import_module(_FETCHER).read_weights(os.fspath(weights))
        return fetched
    return read_checkpoint(weights)


_FETCHER = "trackmill.pipeline.weights"
_FETCH = f"{_FETCHER}.read_weights(url) fetches it and gives what you can pass here"


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether it names something that has to be fetched: `https://`, `s3://`, `hf://`; not `file://`."""
    return "://" in os.fspath(source).removeprefix("file://")


def local_path(source: str | os.PathLike[str], advice: str = _FETCH) -> Path:
    """The path, `~` resolved.

    Raises:
        ValueError: it is a URL; gives the advice.
    """
    text = os.fspath(source).removeprefix("file://")
    if is_url(text):
        raise InputError(f"{_without_secrets(text)}: models read files of this machine only; {advice}")
    return Path(text).expanduser()


def _without_secrets(url: str) -> str:
    # What follows a "?" may be a signature, and what stands before an "@" a password: neither has a place in a log.
    return re.sub(r"://[^/@]*@", "://", re.split(r"[?#]", url)[0])


def state_dict_of(loaded: Any, where: str = "the weights") -> dict[str, Tensor]:
    """Take wrappers (`{"state_dict": ...}`, `{"ema": {"module": ...}}`) and common prefixes (`module.`) off.

    Raises:
        BadWeights: what is left are not tensors by name.
    """
    tensor = _torch().Tensor
    while (inner := _inside(loaded)) is not None:
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded:
        what = "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise BadWeights(f"{where}: holds {what} where tensors by name (a state dict) were expected")
    state = {str(name).replace(_COMPILED, ""): values for name, values in loaded.items()}
    while prefix := next((each for each in PREFIXES if _all_begin_with(state, each)), None):
        state = {name.removeprefix(prefix): values for name, values in state.items() if name not in _COUNTERS}
    others = [name for name, values in state.items() if not isinstance(values, tensor)]
    if others:
        raise BadWeights(f"{where}: {len(others)} entries are no tensors: {', '.join(others[:5])}; {_SAVE}")
    # A tensor with stride 0 may repeat a few bytes a billion times; a sum over its values would never end.
    repeated = [name for name, values in state.items() if _is_repeated(values)]
    if repeated:
        raise BadWeights(
            f"{where}: {repeated[0]} says that it has {state[repeated[0]].numel():,} values, and holds fewer"
        )
    return state


def _is_repeated(values: Tensor) -> bool:
    plain = not values.is_sparse and not values.is_quantized and values.device.type == "cpu"
    num_bytes = values.numel() * values.element_size()
    return plain and num_bytes > _MOST_REPEATED and num_bytes > values.untyped_storage().nbytes()


def _inside(loaded: Any) -> Mapping[Any, Any] | None:
    """What the first wrapper holds; None where there is none."""
    if not isinstance(loaded, Mapping):
        return None
    wrapped = (loaded.get(wrapper) for wrapper in WRAPPERS)
    return next((inner for inner in wrapped if isinstance(inner, Mapping) and inner), None)


def _all_begin_with(state: Mapping[str, Any], prefix: str) -> bool:
    names = [name for name in state if name not in _COUNTERS]
    return bool(names) and all(name.startswith(prefix) for name in names)


def _no_checkpoint(start: bytes) -> str:
    """What a file is that is often found in a checkpoint's place, by its first bytes; "" for any other."""
    if not start:
        return "the file is empty; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; `git lfs pull` fetches that"
    if not start.startswith((b"PK", b"\x80")) and start.lstrip()[:1] not in (b"<", b"{"):
        return "not loaded, because it is damaged or no checkpoint: neither of torch.save nor safetensors"
    if start.lstrip().startswith((b"<", b"{")):
        return "a web page or a server's answer, not a checkpoint; open the link in a browser to see what it says"
    return ""


def _check_sums(path: Path, where: str) -> None:
    """Hold a file to the sums that its name promises."""
    sums = {}
    if promised_md5(path.name):
        with open(path, "rb") as handle:
            sums["md5"] = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if promised_sha256(path.name):
        with open(path, "rb") as handle:
            sums["sha256"] = hashlib.file_digest(handle, "sha256").hexdigest()
    check_sums(path.name, sums, where)


def _read_safetensors(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    _torch()
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise BadWeights(f"{where}: a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}; it is damaged")
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingPackage(f"{where} needs another package: {install_package('safetensors')}") from error
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata()  # noqa: SIM118
    except SafetensorError as error:
        raise BadWeights(f"{where}: not a whole safetensors file: {error}") from None


class _Leftover:
    """Stands for an object of the training tool: takes whatever it is given and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Leftover:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _read_torch(path: Path, where: str, verified: bool) -> Any:
    torch = _torch()
    try:
        # Only tensors and plain containers are made, whatever the file asks for.
        if not zipfile.is_zipfile(path):  # torch before 1.6
            with torch.serialization.safe_globals([(_Leftover, "argparse.Namespace")]):
                return torch.load(path, map_location="cpu", weights_only=True)
        if is_torchscript(path):
            return read_torchscript(path, verified=verified)
        _check_records(path)
        if not verified:
            check_crcs(path)
        beside = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        foreign = [name for name in beside if not _TRAINER_LEFTOVERS.fullmatch(name)]
        if foreign:
            raise BadWeights(f"it asks for {', '.join(sorted(foreign)[:5])}")
        with torch.serialization.safe_globals([(_Leftover, _full_name(name)) for name in beside]):
            # Mapped, not read: the parts of a detector that tracking has no use for are never touched.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        check_lengths(path)
        return loaded
    except MemoryError:
        raise BadWeights(
            f"{where}: loading its {path.stat().st_size:,} bytes asks for more memory than there is; the file is "
            "damaged, or too large for this machine"
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the operating system's, and not what the reader makes of a broken file
        raise BadWeights(
            f"{where}: not loaded, because it is damaged or holds more than tensors ({_first_cause(error)}); if it is "
            f"yours, {_SAVE}"
        ) from None


def _check_records(path: Path) -> None:
    """Refuse records that unfold: torch.save packs none of them, and the reader makes room for what they say.

    Raises:
        BadWeights: one is packed, or the pickle is larger than any list of tensors.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise BadWeights(f"its record {record.filename[:80]!r} is packed")
            if record.filename.endswith(".pkl") and record.file_size > MAX_PICKLE_BYTES:
                raise BadWeights(f"its list of tensors has {record.file_size:,} bytes, more than {MAX_PICKLE_BYTES:,}")


def _first_cause(error: Exception) -> str:
    # Only the cause, or else the first sentence: torch goes on to recommend weights_only=False, just what not to do.
    if isinstance(error, BadWeights | ShortRecord | DamagedRecord):
        return str(error)
    if isinstance(error, OSError):
        return f"reading fails where its directory leads: {(error.strerror or str(error)).lower()}"
    text = str(error).strip()
    sentence = re.search(r"WeightsUnpickler error: (.+?)(?:\. |\n|$)", text) or re.match(r"(.+?)(?:\. |\n|$)", text)
    return f"{type(error).__name__}: {sentence.group(1)}" if sentence else type(error).__name__


def _full_name(name: str) -> str:
    # torch lists what is built in without its module, and looks it up with it.
    return name if "." in name else f"builtins.{name}"


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(f"checkpoints need torch: {install('masa')} (or the extra sam)") from error
    return torch
