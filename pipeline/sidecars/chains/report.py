"""Purity of a sidecar that lies there: by what its parts counted, or against ground truth in files of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.sidecars.about import find_sidecars
from trackmill.pipeline.sidecars.chains.purity import Truth, count_purity, objects_of, purity_of
from trackmill.pipeline.sidecars.part import read_part_about
from trackmill.pipeline.sidecars.producers.file_detections import video_names
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.sources.mot_rows import FrameRows, read_ground_truth
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, dirname, join
from trackmill.schemas.errors import InputError

TruthOf = Callable[[Sample], "list[Truth | None] | None"]
"""Objects of each frame of a sample; None where nothing is known of any."""

_THREADS = 16
_COLUMNS = ("chain", "box")
_TRUTH_SUFFIXES = (".txt", ".csv")


def stored_counts(url: str, name: str) -> Counter[str]:
    """What the producer of a sidecar counted, over all parts that are there.

    Args:
        url: of the data set.
        name: of the sidecar.

    Raises:
        NoSidecar, BadPart, OSError: there is none, or a part cannot be read.
    """
    dataset = open_dataset(url)
    assert dataset.layout is not None
    sidecar = find_sidecars(dataset.layout)[name]
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        for about in pool.map(
            lambda part: read_part_about(join(sidecar.folder, part), f"sidecars/{name}/{part}"), sorted(sidecar.parts)
        ):
            total.update(about.counts)
    return total


def measure_counts(url: str, name: str, truth: TruthOf) -> Counter[str]:
    """Counts of `count_purity` over all samples of which the truth is known, whoever made the sidecar.

    Args:
        url: of the data set.
        name: of a sidecar with the columns `chain` and `box`.
        truth: see `TruthOf`.

    Raises:
        InputError: another sidecar, or nothing is known of any sample.
        BadPart, BadShard, OSError: something cannot be read.
    """
    dataset = open_dataset(url)
    assert dataset.layout is not None
    tables = SidecarTables(find_sidecars(dataset.layout), dataset.shards)
    columns = {column.name for column in tables.sidecars[name].about.columns}
    if missing := [column for column in _COLUMNS if column not in columns]:
        raise InputError(f"sidecar {name}: has no column {missing[0]!r}, so it holds no chains")
    total: Counter[str] = Counter()
    known = 0
    for sample, objects in _known(dataset, truth):
        known += 1
        part = tables.part(name, sample.shard)
        if part.quarantined(sample.key):
            continue
        rows = part.of_sample(sample.key)
        total.update(count_purity(rows["frame"], rows["chain"], rows["box"], objects))
    if not known:
        raise InputError(f"{redact(url)}: no clip has objects that are known, so nothing says how pure chains are")
    return total


class TruthFiles:
    """Ground truth in files of MOTChallenge, each called like its video: `TUD-Stadtmitte/gt/gt.txt`, or `NAME.txt`.

    Args:
        url: a file, or a folder of them.

    Raises:
        InputError: there is none, or two are called alike.
        BadItem: a row is broken; names file and line.
    """

    def __init__(self, url: str) -> None:
        self._where = redact(url)
        self._rows: dict[str, dict[int, FrameRows]] = {}
        texts = [file.uri for file in list_files(url) if basename(file.uri).lower().endswith(_TRUTH_SUFFIXES)]
        truths = [uri for uri in texts if basename(uri) == "gt.txt"] or texts
        for uri in truths:
            name = basename(uri).rpartition(".")[0]
            if basename(uri) == "gt.txt":
                above = dirname(uri)
                name = basename(dirname(above)) if basename(above) == "gt" else basename(above)
            if name in self._rows:
                raise InputError(f"{self._where}: two texts are of the sequence {name!r}: {redact(uri)} is the second")
            self._rows[name] = read_ground_truth(uri)
        if not self._rows:
            raise InputError(f"{self._where}: no ground truth here: gt/gt.txt in folders, or NAME.txt, of MOTChallenge")

    def __call__(self, sample: Sample) -> list[Truth | None] | None:
        """See `TruthOf`. Frame 0 of a video is frame 1 of its file."""
        origin, stored = sample.record.origin, sample.record.stored
        for name in video_names(origin.uri):
            if name in self._rows:
                rows = self._rows[name]
                scale = np.array([stored.width / origin.width, stored.height / origin.height] * 2)
                return [
                    _scaled(rows.get(frame.index + 1), origin.height, origin.width, scale)
                    for frame in sample.record.frames
                ]
        return None


def purity_report(url: str, name: str, truth_url: str = "") -> dict[str, object]:
    """The purity of a sidecar, see `trackmill.pipeline.sidecars.chains.purity.purity_of`.

    Args:
        url: of the data set.
        name: of the sidecar.
        truth_url: files of ground truth; empty: the objects that are stored with the samples.

    Raises:
        InputError: nothing is known of any clip.
        BadPart, BadShard, OSError: something cannot be read.
    """
    if truth_url:
        return purity_of(measure_counts(url, name, TruthFiles(truth_url)))
    counts = stored_counts(url, name)
    return purity_of(counts) or purity_of(measure_counts(url, name, objects_of))


def _known(dataset: Dataset, truth: TruthOf) -> Iterator[tuple[Sample, list[Truth | None]]]:
    rows = [row for row in dataset.stored if row.frames > 1]
    found = ((sample, truth(sample)) for sample in (read_row(dataset, row) for row in rows))
    return ((sample, objects) for sample, objects in found if objects is not None)


def _scaled(rows: FrameRows | None, height: int, width: int, scale: NDArray[np.float64]) -> Truth:
    if rows is None:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    annotations = rows.clipped(height, width)
    return (annotations.boxes * scale).astype(np.float32), np.array(annotations.ids, np.int64)
