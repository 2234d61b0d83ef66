"""Python and its packages against what Trackmill asks for and what it was tested with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import trackmill
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.schemas.install import install, install_package

WEIGHTY = ("ray", "torch", "torchvision", "deepspeed", "pyarrow", "numpy", "transformers", "albumentations", "av")
"""Packages whose other versions change results, formats or how a cluster talks; of others a difference is a note."""

SAFE_TAR_PYTHON = (3, 11, 14)
"""From here on the standard library's tar reader ends on a member of negative size (CVE-2025-8194)."""

_OPENCV = re.compile(r"^opencv-(contrib-)?python(-headless)?$")
_SHOWN = 6
_HIDDEN_EXTRAS = ("dev", "oracle")


def check_packages(pins: Path | None = None) -> list[Finding]:
    """Python's version, missing and differing packages, extras that are whole, and wheels that are in each other's way.

    Args:
        pins: a constraints file; None: the one beside the code, if there is one.
    """
    there = {_name(each.metadata["Name"]): each.version for each in distributions() if each.metadata}
    found = [_python()]
    found += _missing(there)
    found += _against_pins(there, pins or pins_beside_the_code())
    found += _several_opencv(there)
    found += _extras(there)
    return found


def pins_beside_the_code() -> Path | None:
    """`constraints.txt` of a checkout; an installed package has none."""
    path = Path(trackmill.__file__).resolve().parents[1] / "constraints.txt"
    return path if path.is_file() else None


def read_pins(text: str) -> dict[str, str]:
    """Version of each package that a constraints file names for this Python and machine.

    Raises:
        InvalidRequirement: a line is none.
    """
    pins = {}
    for line in text.splitlines():
        if not (line := line.partition("#")[0].strip()):
            continue
        wanted = Requirement(line)
        exact = [each.version for each in wanted.specifier if each.operator == "=="]
        if exact and (wanted.marker is None or wanted.marker.evaluate()):
            pins[_name(wanted.name)] = exact[0]
    return pins


def _python() -> Finding:
    said = f"Python {sys.version.split()[0]}, trackmill {trackmill.__version__}"
    if sys.version_info[:3] < SAFE_TAR_PYTHON:
        wanted = ".".join(map(str, SAFE_TAR_PYTHON))
        said += f"; before {wanted} other programs here that unpack tars can be hung by one (CVE-2025-8194)"
        return Finding(about="python", level=Level.NOTE, said=said)
    return Finding(about="python", said=said)


def _missing(there: Mapping[str, str]) -> Iterator[Finding]:
    wrong = [_fault(wanted, there) for wanted in _requirements() if wanted.marker is None or wanted.marker.evaluate()]
    wrong = [each for each in wrong if each]
    if wrong:
        yield Finding(
            about="packages",
            level=Level.FAULT,
            said=f"needed and not as they should be: {_some(wrong)}",
            mend='install again: pip install --constraint constraints.txt -e "."',
        )


def _against_pins(there: Mapping[str, str], pins: Path | None) -> Iterator[Finding]:
    if pins is None:
        yield Finding(about="pins", level=Level.NOTE, said="no constraints.txt lies beside the code to compare with")
        return
    try:
        wanted = read_pins(pins.read_text())
    except (InvalidRequirement, UnicodeDecodeError) as error:
        yield Finding(
            about="pins",
            level=Level.WARNING,
            said=f"{pins}: {' '.join(str(error).split())}",
            mend="restore the file; it has one NAME==VERSION a line",
        )
        return
    # `2.14.1+cpu` is 2.14.1, built for CPUs.
    other = {
        name: f"{name} {there[name]} (pinned {pin})"
        for name, pin in wanted.items()
        if name in there and there[name].partition("+")[0] != pin.partition("+")[0]
    }
    if weighty := [other[name] for name in WEIGHTY if name in other]:
        yield Finding(
            about="pins",
            level=Level.WARNING,
            said=f"other versions than Trackmill is tested with: {_some(weighty)}",
            mend=f"{install('THE,SAME,EXTRAS,AS,BEFORE')}; all machines of a cluster need the same",
        )
    elif other:
        yield Finding(about="pins", level=Level.NOTE, said=f"other versions than pinned: {_some(other.values())}")
    else:
        count = sum(name in there for name in wanted)
        yield Finding(about="pins", said=f"{count} packages, all as pinned")


def _several_opencv(there: Mapping[str, str]) -> Iterator[Finding]:
    wheels = sorted(name for name in there if _OPENCV.match(name))
    if len(wheels) > 1:
        yield Finding(
            about="opencv",
            level=Level.WARNING,
            said=f"{' and '.join(wheels)} write the same module over each other",
            mend=f"pip uninstall {' '.join(wheels)}, then {install_package('opencv-contrib-python-headless')}",
        )


def _extras(there: Mapping[str, str]) -> Iterator[Finding]:
    """Which features have all that they need; what an extra lacks is nobody's fault."""
    of_extra: dict[str, list[str]] = {}
    for wanted in _requirements():
        for extra in _extras_of(wanted.marker) if wanted.marker else ():
            of_extra.setdefault(extra, [])
            # An extra may ask for others of ours, which are listed themselves.
            if _name(wanted.name) != "trackmill" and (fault := _fault(wanted, there)):
                of_extra[extra].append(fault)
    whole = sorted(extra for extra, lacks in of_extra.items() if not lacks and extra not in _HIDDEN_EXTRAS)
    lacking = sorted(extra for extra, lacks in of_extra.items() if lacks and extra not in _HIDDEN_EXTRAS)
    if of_extra:
        said = f"here: {', '.join(whole) or 'none'}"
        if lacking:
            said += f"; not here: {', '.join(lacking)} ({install('EXTRA')} adds one)"
        yield Finding(about="extras", said=said)


def _name(package: str) -> str:
    return str(canonicalize_name(package))


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(line) for line in requires("trackmill") or ()]
    except PackageNotFoundError:
        return []


def _extras_of(marker: Marker) -> list[str]:
    return re.findall(r"extra == ['\"]([^'\"]+)['\"]", str(marker))


def _fault(wanted: Requirement, there: Mapping[str, str]) -> str:
    """What is wrong with a package; empty where nothing is."""
    name = _name(wanted.name)
    if name not in there:
        return f"{wanted.name} is missing"
    if not wanted.specifier.contains(there[name], prereleases=True):
        return f"{wanted.name} {version(wanted.name)} should be {wanted.specifier}"
    return ""


def _some(texts: Iterable[str]) -> str:
    listed = list(texts)
    more = f", and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
