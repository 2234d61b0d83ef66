"""The MD5 sums that names of published SAM checkpoints promise."""

from __future__ import annotations

import re

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


def promised_md5(name: str) -> str:
    """What the MD5 of a file of this name must begin with: 32 digits where it is published, 6, or none ("")."""
    found = _MD5_IN_NAME.match(name)
    return PUBLISHED_MD5.get(name, found.group(1)) if found else ""


def check_md5(name: str, md5: str, where: str) -> None:
    """Hold a file to its name.

    Args:
        name: of the file, without folders, where it was published.
        md5: of its bytes, 32 hexadecimal digits.
        where: what the error calls the file.

    Raises:
        ValueError: the name promises another sum; says both.
    """
    expected = promised_md5(name)
    if not md5.startswith(expected):
        raise InputError(
            f"{where}: its MD5 is {md5}, but {name} has {expected}{'' if len(expected) == 32 else '...'}: the file "
            "is damaged or was renamed; fetch it again, or give your own checkpoint a name of its own"
        )
