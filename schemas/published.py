"""The sums that names of checkpoint files promise: of published ones, and of those that carry digits of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trackmill.schemas.errors import InputError

PUBLISHED_MD5 = {
    "sam_vit_h_4b8939.pth": "4b8939a88964f0f4ff5f5b2642c598a6",
    "sam_vit_l_0b3195.pth": "0b3195507c641ddb6910d2bb5adee89c",
    "sam_vit_b_01ec64.pth": "01ec64d29a2fca3f0661936605ae66f8",
}
"""Meta's files carry the first six digits in their names; the full sums are those that public projects list.

`mobile_sam.pt` is not here, though the published file's sum is known (f3c0d8cda613564d499310dab6c812cd): its name
promises no sum, and people keep models they trained themselves under it.
"""

_MD5_IN_NAME = re.compile(r"^sam_vit_[bhl]_([0-9a-f]{6})\.pth$")

_SHA256_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")
"""Model zoos write the first digits of a file's SHA-256 into its name."""


class BadWeights(InputError):
    """A checkpoint that is damaged, is not the one that was asked for, or does not fit; the text says which and why."""


def promised_md5(name: str) -> str:
    """What the MD5 of a file of this name must begin with: 32 digits where it is published, 6, or none ("")."""
    found = _MD5_IN_NAME.match(name)
    return PUBLISHED_MD5.get(name, found.group(1)) if found else ""


def promised_sha256(name: str) -> str:
    """What the SHA-256 of a file of this name must begin with: 8 to 64 digits, or none ("")."""
    found = _SHA256_IN_NAME.search(name)
    return found.group(1) if found else ""


def check_sums(name: str, sums: Mapping[str, str], where: str) -> None:
    """Hold a file to its name.

    Args:
        name: of the file, without folders, where it was published.
        sums: of its bytes, hexadecimal, as far as they are known: `md5`, `sha256`.
        where: what the error calls the file.

    Raises:
        BadWeights: the name promises another sum; says both.
    """
    if "md5" in sums:
        check_md5(name, sums["md5"], where)
    promised = promised_sha256(name)
    if "sha256" in sums and not sums["sha256"].startswith(promised):
        raise BadWeights(
            f"{where}: its SHA-256 is {sums['sha256']}, but its name promises {promised}...: the file is damaged or "
            "was changed; fetch it again, or give your own checkpoint a name without those digits"
        )


def check_md5(name: str, md5: str, where: str) -> None:
    """The same for the MD5 alone.

    Args:
        name: of the file, without folders, where it was published.
        md5: of its bytes, 32 hexadecimal digits.
        where: what the error calls the file.

    Raises:
        BadWeights: the name promises another sum; says both.
    """
    expected = promised_md5(name)
    if not md5.startswith(expected):
        raise BadWeights(
            f"{where}: its MD5 is {md5}, but {name} has {expected}{'' if len(expected) == 32 else '...'}: the file "
            "is damaged or was renamed; fetch it again, or give your own checkpoint a name of its own"
        )
