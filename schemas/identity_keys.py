"""One whole number for an identity of all data sets: what tables of identities are looked up by."""

from __future__ import annotations

import hashlib

NO_KEY = -1
"""Of a box that belongs to no identity that lasts, such as one in a static picture."""


def identity_key(dataset: str, sequence: str, identity: int | str) -> int:
    """The key of an identity: the same on every machine and in every run, as it is a hash of the three.

    Args:
        dataset: name of the data set.
        sequence: name of the sequence in it.
        identity: number, or name, of the identity in the sequence. 7 and "7" are the same.

    Returns:
        A number of 63 bits, never negative, so that it fits into an int64: the first 8 bytes of BLAKE2b, halved. That
        two of n identities share a key has about the odds n^2 / 2^64: 5 in a hundred million for a million identities.
    """
    # With their lengths, since "a" in "b/c" is not "a/b" in "c".
    parts = (dataset, sequence, str(identity))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
