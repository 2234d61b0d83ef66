"""The association benchmark: linking, pooling, thresholds, intervals, embeddings from everywhere, reference table."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tests import make_media
from tests.evaluation.make_tracks import make_video
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.association.built_in import hsv_histogram
from trackmill.pipeline.evaluation.association.embeddings import embed, named_embedding
from trackmill.pipeline.evaluation.association.intervals import PersonSums, association_sums, paired_intervals
from trackmill.pipeline.evaluation.association.linking import link
from trackmill.pipeline.evaluation.association.measure import association_benchmark
from trackmill.pipeline.evaluation.association.pictures import find_pictures
from trackmill.pipeline.evaluation.association.sequences import box_sequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.association.threshold import choose_threshold
from trackmill.pipeline.evaluation.benchmarks.association import evaluate_association
from trackmill.pipeline.evaluation.metrics.hota import hota
from trackmill.pipeline.evaluation.metrics.identity import identity
from trackmill.pipeline.evaluation.metrics.retrieval import unit_length
from trackmill.pipeline.evaluation.tracks import Video, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.schemas.config import ConfigError, build

MOT15 = DATA / "mot15"


def made_sequence(name="made", seed=0, num_frames=40, num_objects=6, pictures=None):
    gt = make_video(name, seed=seed, num_frames=num_frames, num_objects=num_objects).gt
    return box_sequence(name, gt.frames + 1, gt.ids, gt.boxes, pictures)


def noisy_vectors(sequence, noise, seed=0, size=16):
    rng = np.random.default_rng(seed)
    people, who = np.unique(sequence.ids, return_inverse=True)
    looks = rng.normal(0, 1, (len(people), size))
    return unit_length(looks[who] + rng.normal(0, noise, (len(who), size)))


def write_gt(root, sequence, flags=None):
    folder = root / sequence.name / "gt"
    folder.mkdir(parents=True)
    flags = np.ones(len(sequence), int) if flags is None else flags
    sizes = sequence.boxes[:, 2:] - sequence.boxes[:, :2]
    rows = [
        f"{frame},{person},{box[0]},{box[1]},{size[0]},{size[1]},{flag},-1,-1,-1\n"
        for frame, person, box, size, flag in zip(sequence.frames, sequence.ids, sequence.boxes, sizes, flags)
    ]
    (folder / "gt.txt").write_text("".join(rows))


# --- linking -------------------------------------------------------------------------------------------------------


def slow_link(vectors, frames, threshold, stride, memory, ema):
    """One phase after another; the best assignment by trying all of them."""
    tracks, next_track = {}, 0
    for phase in range(stride):
        known = []  # [vector, track, last step]
        for step, frame in enumerate(range(phase, frames.max() + 1, stride)):
            rows = np.flatnonzero(frames == frame)
            known = [entry for entry in known if step - entry[2] <= memory]
            places = list(range(len(known))) + [None] * len(rows)
            best, chosen = -1.0, ()
            for order in itertools.permutations(places, len(rows)):
                gains = [vectors[r] @ known[p][0] - threshold for r, p in zip(rows, order) if p is not None]
                if all(gain > 0 for gain in gains) and sum(gains) > best + 1e-9:
                    best, chosen = sum(gains), order
            for row, place in zip(rows, chosen):
                if place is None:
                    known.append([vectors[row].astype(np.float64), next_track, step])
                    tracks[row] = next_track
                    next_track += 1
                else:
                    mixed = (1 - ema) * known[place][0] + ema * vectors[row]
                    known[place] = [mixed / np.linalg.norm(mixed), known[place][1], step]
                    tracks[row] = known[place][1]
    return np.array([tracks[row] for row in range(len(frames))])


def same_partition(a, b):
    pairs = set(zip(a.tolist(), b.tolist()))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("stride", [1, 3])
def test_links_equal_the_rule_written_as_loops(seed, stride):
    rng = np.random.default_rng(seed)
    frames, ids = np.nonzero(rng.random((15, 3)) < 0.6)
    frames = frames.astype(np.int64)
    vectors = unit_length(rng.normal(0, 1, (3, 4))[ids] + rng.normal(0, 0.5, (len(ids), 4)))
    options = {"threshold": 0.2, "stride": stride, "memory": 2, "ema": 0.3}
    assert same_partition(link(vectors, frames, **options), slow_link(vectors, frames, **options))


def test_weak_pairs_do_not_push_a_good_one_aside():
    # Cosines with the two tracks: (0.9, 0.43) and (0.8, 0). Their best sum is 0.43 + 0.8; with the weak pair struck out
    # afterwards the second box would get the first track, although the first box is nearer to it.
    vectors = unit_length(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.9, 0.43, 0.07, 0], [0.8, 0, 0, 0.6]]))
    tracks = link(vectors, np.array([0, 0, 1, 1]), threshold=0.5)
    assert tracks[2] == tracks[0]
    assert tracks[3] not in tracks[:3]


def test_memory_counts_processed_frames_also_empty_ones():
    vectors = unit_length(np.ones((2, 3)))
    for gap, remembered in ((10, True), (11, False)):
        tracks = link(vectors, np.array([1, 1 + gap]), threshold=0.5, memory=10)
        assert (tracks[0] == tracks[1]) == remembered
        tracks = link(vectors, np.array([1, 1 + 5 * gap]), threshold=0.5, stride=5, memory=10)
        assert (tracks[0] == tracks[1]) == remembered


def test_phases_are_apart_and_a_zero_vector_begins_a_track():
    vectors = unit_length(np.array([[1, 0], [1, 0], [1, 0], [0, 0], [0, 0]]))
    tracks = link(vectors, np.array([0, 1, 2, 3, 5]), threshold=-0.0, stride=2)
    assert tracks[0] == tracks[2]
    assert len({tracks[0], tracks[1], tracks[3], tracks[4]}) == 4


@pytest.mark.parametrize("stride", [1, 4, 100])
def test_pooled_phases_equal_trackeval_combining_them(stride):
    oracle = pytest.importorskip("tests.evaluation.oracle", reason="needs trackeval")
    sequence = made_sequence(seed=3, num_frames=37, num_objects=9)
    tracks = link(noisy_vectors(sequence, 1.0), sequence.frames, threshold=0.1, stride=stride)
    videos = []
    for phase in range(stride):
        rows = np.flatnonzero(sequence.frames % stride == phase)
        if len(rows):
            steps = sequence.frames[rows] // stride
            gt = make_tracks(steps, sequence.ids[rows], sequence.boxes[rows])
            videos.append(Video(name=str(phase), num_frames=38, gt=gt, predictions=replace(gt, ids=tracks[rows])))
    _, together = oracle.evaluate(oracle.similarity_data(video) for video in videos)
    linked = sequence.linked(tracks, stride)
    assert hota(linked).scores()["AssA"] == pytest.approx(together["AssA"].mean(), abs=1e-12)
    assert identity(linked).scores()["IDF1"] == pytest.approx(together["IDF1"], abs=1e-12)
    if stride == 1:
        assert together["AssA"].mean() < 0.9  # there is something to get wrong


# --- threshold -----------------------------------------------------------------------------------------------------


def test_threshold_is_the_best_candidate_and_fits_narrow_cosines():
    sequence = made_sequence(seed=1, num_frames=60)
    wide = noisy_vectors(sequence, 0.7)
    # A common part in all vectors, as embeddings without centring have: all cosines are above .99.
    narrow = unit_length(np.concatenate([wide, np.full((len(wide), 1), 20.0)], axis=1))
    for vectors in (wide, narrow):
        threshold, tried = choose_threshold([sequence], {"made": vectors}, memory=10, ema=0.5)
        assert len(tried) == 20 and threshold in tried
        assert tried[threshold] == max(tried.values()) > min(tried.values())
        report = association_benchmark({"made": vectors}, [sequence])
        assert report.threshold == threshold
        assert report.metrics["AssA"] == pytest.approx(100 * tried[threshold])


def test_threshold_of_other_sequences_is_kept():
    one, two = made_sequence("one", seed=1), made_sequence("two", seed=2)
    vectors = {"one": noisy_vectors(one, 0.4), "two": noisy_vectors(two, 1.2)}
    alone = association_benchmark(vectors, [two])
    kept = association_benchmark(vectors, [two], dev=[one])
    assert kept.threshold == association_benchmark(vectors, [one]).threshold != alone.threshold
    assert kept.chosen_on == ("one",) and not any("flatter" in note for note in kept.notes)
    assert alone.chosen_on == ("two",) and any("flatter" in note for note in alone.notes)
    given = association_benchmark(vectors, [two], threshold=kept.threshold)
    assert given.metrics == kept.metrics and given.chosen_on == () and given.notes == kept.notes


# --- intervals -----------------------------------------------------------------------------------------------------


def test_association_by_person_adds_up_to_assa():
    sequence = made_sequence(seed=5, num_objects=10)
    tracks = link(noisy_vectors(sequence, 0.9), sequence.frames, threshold=0.3, stride=3)
    linked = sequence.linked(tracks, 3)
    people = len(np.unique(sequence.ids))
    sums = association_sums(linked, linked.gt_names // 3, people)
    counts = hota(linked)
    assert sums.numerator.sum(axis=0) == pytest.approx(counts.association)
    assert sums.denominator.sum(axis=0) == pytest.approx(counts.tp)
    assert sums.scores(np.ones((1, people)))[0] == pytest.approx(counts.scores()["AssA"])
    # Each box matches itself at .95, so there each person has as many matches as boxes.
    assert sums.denominator[:, -1].tolist() == np.unique(sequence.ids, return_counts=True)[1].tolist()


def person_sums(numerator, denominator):
    return PersonSums(numerator=np.array(numerator, float)[:, None], denominator=np.array(denominator, float)[:, None])


def test_intervals_are_those_of_all_draws_of_two_people():
    # Two people, one sequence: draws are AA, AB, BA, BB with equal chances. Differences: A 1, B 0, both 0.5.
    first, second = person_sums([4, 1], [4, 4]), person_sums([0, 1], [4, 4])
    found = paired_intervals({"rank1": [first]}, {"rank1": [second]}, draws=4000, seed=1)["rank1"]
    assert (found.first, found.second, found.difference) == (0.625, 0.125, 0.5)
    assert (found.low, found.high) == (0, 1)
    # Certain to be better by exactly .25, whoever is drawn: the draw is the same for both.
    first, second = person_sums([3, 2], [4, 4]), person_sums([2, 1], [4, 4])
    found = paired_intervals({"rank1": [first]}, {"rank1": [second]}, draws=50, seed=1)["rank1"]
    assert (found.low, found.difference, found.high) == (0.25, 0.25, 0.25)


def test_intervals_cover_a_known_spread():
    # 400 people, differences of 0 or 1 with chance p = .3: the mean's standard deviation is sqrt(p (1 - p) / 400).
    wins = np.arange(400) < 120
    first, second = person_sums(wins, np.ones(400)), person_sums(np.zeros(400), np.ones(400))
    found = paired_intervals({"x": [first]}, {"x": [second]}, draws=4000, seed=0)["x"]
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert found.difference == pytest.approx(0.3)
    assert (found.low, found.high) == (pytest.approx(0.3 - spread, abs=0.004), pytest.approx(0.3 + spread, abs=0.004))


def test_intervals_where_somebody_has_nothing_to_score():
    nobody = person_sums([0, 0], [0, 0])
    some = person_sums([1, 0], [1, 0])  # a draw without the first person has nothing in this sequence
    other = person_sums([0, 0], [1, 0])
    found = paired_intervals(
        {"x": [nobody, some], "y": [nobody, nobody]}, {"x": [nobody, other], "y": [nobody] * 2}, draws=50, seed=0
    )
    assert (found["x"].difference, found["x"].low, found["x"].high) == (1, 1, 1)
    assert found["y"] is None
    assert paired_intervals({"x": []}, {"x": []}, draws=5, seed=0) == {"x": None}


def test_reports_are_compared_pairwise():
    sequences = [made_sequence("one", seed=1), made_sequence("two", seed=2, num_frames=60)]
    good = association_benchmark({s.name: noisy_vectors(s, 0.3) for s in sequences}, sequences, strides=(2, 10))
    poor = association_benchmark({s.name: noisy_vectors(s, 2.0) for s in sequences}, sequences, strides=(2, 10))
    found = good.intervals(poor, draws=200)
    assert list(found) == ["AssA@2", "AssA@10", "rank1@5", "mAP@5", "rank1@20", "mAP@20", "rank1@50", "mAP@50"]
    for name, interval in found.items():
        assert 100 * interval.first == pytest.approx(good.metrics[name])
        assert 100 * interval.second == pytest.approx(poor.metrics[name])
        assert interval.low <= interval.difference <= interval.high
    assert found["rank1@5"].low > 0
    assert found == good.intervals(poor, draws=200)
    itself = good.intervals(good, draws=20)["AssA@2"]
    assert (itself.difference, itself.low, itself.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="same sequences"):
        good.intervals(association_benchmark(lambda image, boxes: boxes, [], threshold=0))


# --- embeddings ----------------------------------------------------------------------------------------------------


def test_hsv_histogram_of_plain_colours():
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, :4] = (255, 0, 0)  # hue 0, saturation 255, value 255
    image[:, 4:8] = (0, 0, 200)  # hue 120 of 180: cell 5; value 200: cell 6
    image[:, 8:] = (90, 90, 90)  # gray: hue 0, saturation 0, value cell 2
    boxes = np.array(
        [[0.9, 0, 4.9, 7.9], [4, 2, 12, 6], [-5, -5, 2.5, 1.5], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32
    )
    found = hsv_histogram(image, boxes)
    red, blue, gray = (0 * 8 + 7) * 8 + 7, (5 * 8 + 7) * 8 + 6, 2
    expected = np.zeros((5, 512))
    expected[0, red] = 4 * 7
    expected[1, [blue, gray]] = 4 * 4
    expected[2, red] = 2 * 1
    assert found.tolist() == expected.tolist()
    assert hsv_histogram(image, np.zeros((0, 4), np.float32)).shape == (0, 512)


def test_hsv_histogram_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image[:100] //= 16  # dark and nearly gray pixels round the most
    box = np.array([[0, 0, 400, 300]], np.float32)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    expected = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])
    assert np.array_equal(hsv_histogram(image, box)[0], expected.ravel())


def columns_of(sequences, seed=0, size=5):
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.full(len(s), s.name) for s in sequences])
    rows = {
        "sequence": names,
        "frame": np.concatenate([s.frames for s in sequences]),
        "id": np.concatenate([s.ids for s in sequences]),
        "embedding": rng.normal(0, 1, (len(names), size)).astype(np.float32),
    }
    order = rng.permutation(len(names))
    return {name: column[order] for name, column in rows.items()}, order


def write_columns(path, columns):
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".npy":
        kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
        table = np.zeros(len(columns["frame"]), kinds)
        for name, column in columns.items():
            table[name] = column
        np.save(path, table)
    else:
        lists = {name: list(column) if column.ndim > 1 else column for name, column in columns.items()}
        pyarrow.parquet.write_table(pa.table(lists), path)
    return str(path)


@pytest.mark.parametrize("ending", [".npz", ".npy", ".parquet"])
def test_embeddings_of_a_file(tmp_path, ending):
    sequences = [made_sequence("one", seed=1), made_sequence("two", seed=2)]
    columns, order = columns_of(sequences)
    columns["embedding"] = columns["embedding"].astype(np.float16)
    in_order = np.empty_like(columns["embedding"])
    in_order[order] = columns["embedding"]
    url = write_columns(tmp_path / f"vectors{ending}", columns)
    (found,) = embed(sequences[::-1], [named_embedding(url)])
    assert np.array_equal(found["one"], unit_length(in_order[: len(sequences[0])]))
    assert np.array_equal(found["two"], unit_length(in_order[len(sequences[0]) :]))


@pytest.mark.parametrize("ending", [".npz", ".npy", ".parquet"])
@pytest.mark.parametrize(
    "fault, message",
    [
        ("missing row", "no embedding for sequence one, frame {frame}, id {id};"),
        ("missing rows", r"no embedding for sequence one, frame \d+, id \d+ \(and {more} more boxes\)"),
        ("twice", "more than one embedding for sequence one, frame {frame}, id {id};"),
        ("nan", "sequence one, frame {frame}, id {id}: the embedding is not finite"),
        ("text frame", "frame should hold whole numbers"),
        ("no id", "holds no id; needed are sequence, frame, id and embedding"),
        ("flat", "embedding should be "),
        ("broken", "cannot be read as a file of embeddings"),
        ("cut", "cannot be read as a file of embeddings"),
    ],
)
def test_faulty_embedding_files(tmp_path, ending, fault, message):
    sequence = made_sequence("one")
    columns, _ = columns_of([sequence])
    stored = {"frame": columns["frame"][7], "id": columns["id"][7], "more": len(sequence) - 4}
    if fault == "missing row":
        columns = {name: np.delete(column, 7, axis=0) for name, column in columns.items()}
    elif fault == "missing rows":
        columns = {name: column[:3] for name, column in columns.items()}
    elif fault == "twice":
        columns = {name: np.concatenate([column, column[7:8]]) for name, column in columns.items()}
    elif fault == "nan":
        columns["embedding"][7, 2] = np.nan
    elif fault == "text frame":
        columns["frame"] = columns["frame"].astype(str)
    elif fault == "no id":
        del columns["id"]
    elif fault == "flat":
        columns["embedding"] = columns["embedding"][:, 0].copy()
    path = tmp_path / f"vectors{ending}"
    write_columns(path, columns)
    if fault == "broken":
        path.write_bytes(b"not at all " * 20)
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(BadTracks, match=message.format(**stored)) as caught:
        embed([sequence], [named_embedding(str(path))])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_with_code_or_uneven_rows_are_refused(tmp_path):
    columns, _ = columns_of([made_sequence("one")])
    objects = columns["embedding"].astype(object)
    np.savez(tmp_path / "pickled.npz", **{**columns, "embedding": objects})
    with pytest.raises(BadTracks, match=r"pickled.npz: embedding holds Python objects"):
        named_embedding(str(tmp_path / "pickled.npz"))
    np.savez(tmp_path / "uneven.npz", **{**columns, "id": columns["id"][:-1]})
    with pytest.raises(BadTracks, match="columns of different lengths: sequence"):
        named_embedding(str(tmp_path / "uneven.npz"))
    np.savez(tmp_path / "scalar.npz", **{**columns, "frame": np.array(3)})
    with pytest.raises(BadTracks, match="frame should hold whole numbers"):
        named_embedding(str(tmp_path / "scalar.npz"))
    rows = [[1.0, 2.0], [1.0]]
    table = {"sequence": ["a", "a"], "frame": [1, 2], "id": [1, 1]}
    pyarrow.parquet.write_table(pa.table({**table, "embedding": rows}), tmp_path / "uneven.parquet")
    with pytest.raises(BadTracks, match="embedding has 1 numbers in some rows and 2 in others"):
        named_embedding(str(tmp_path / "uneven.parquet"))
    pyarrow.parquet.write_table(pa.table({**table, "embedding": [[1.0], None]}), tmp_path / "null.parquet")
    with pytest.raises(BadTracks, match="embedding is empty in 1 rows"):
        named_embedding(str(tmp_path / "null.parquet"))
    with pytest.raises(FileNotFoundError):
        named_embedding(str(tmp_path / "nowhere.npz"))


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_looks.py").write_text(
        "import numpy as np\n"
        "def corners(image, boxes):\n    return boxes\n"
        "class Model:\n    def __call__(self, image, boxes):\n        return boxes.astype(np.float64)\n"
        "def factory(size=3):\n    return lambda image, boxes: np.ones((len(boxes), size))\n"
        "def fails(image, boxes):\n    raise KeyError('weights')\n"
        "def short(image, boxes):\n    return boxes[1:]\n"
        "def flat(image, boxes):\n    return boxes[:, 0]\n"
        "def words(image, boxes):\n    return [['a']] * len(boxes)\n"
        "def infinite(image, boxes):\n    return boxes / 0 * np.inf\n"
        "def growing(image, boxes):\n    return np.ones((len(boxes), 1 + len(boxes)))\n"
        "class Broken:\n    def __init__(self):\n        raise RuntimeError('no\\nweights')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["corners", "Model", "factory"])
def test_a_callable_by_name(user_module, name):
    pictures = {1: np.zeros((5, 5, 3), np.uint8), 4: np.zeros((5, 5, 3), np.uint8)}
    sequence = box_sequence("s", [4, 1, 4], [1, 1, 2], [[3, 4, 5, 6], [0, 0, 1, 1], [1, 1, 3, 3]], pictures)
    embedding = named_embedding(f"my_looks:{name}")
    (found,) = embed([sequence], [embedding])
    expected = np.ones((3, 3)) if name == "factory" else [[0, 0, 1, 1], [3, 4, 5, 6], [1, 1, 3, 3]]
    assert np.allclose(found["s"], unit_length(np.array(expected)))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("my_looks:fails", "embedding my_looks:fails: sequence s, frame 1: it failed with KeyError: 'weights'"),
        ("my_looks:short", r"frame 1: embeddings of shape \(1, 4\) for 2 boxes, should be \(2, D\)"),
        ("my_looks:flat", r"embeddings of shape \(2,\) for 2 boxes"),
        ("my_looks:words", "not an array of numbers"),
        ("my_looks:infinite", "sequence s, frame 1, id 1: the embedding is not finite"),
        ("my_looks:growing", "frame 2: vectors of length 2, before it was 3"),
        ("my_looks:Broken", "embedding my_looks:Broken: cannot be had: RuntimeError: no weights"),
        ("my_looks:number", "embedding my_looks:number: cannot be had: TypeError"),
        ("my_looks:nothing", "cannot be had: AttributeError"),
        ("no_such_package:f", "cannot be had: ModuleNotFoundError"),
        ("hvs", "hvs: not an embedding; give hsv, random, identity, a file ending in"),
        ("", "not an embedding"),
        ("import os; os:x", "not an embedding"),
    ],
)
def test_callables_that_do_not_work(user_module, spec, message):
    pictures = {frame: np.zeros((5, 5, 3), np.uint8) for frame in (1, 2)}
    sequence = box_sequence("s", [1, 1, 2], [1, 2, 1], [[0, 0, 1, 1]] * 3, pictures)
    with np.errstate(all="ignore"), pytest.raises(BadTracks, match=message) as caught:
        embed([sequence], [named_embedding(spec)])
    assert "\n" not in str(caught.value)


class OnAnotherDevice:
    """What matters of a PyTorch tensor that needs a gradient and lies on a GPU: NumPy cannot look at it."""

    def __init__(self, values):
        self._values = values

    def __array__(self, *_, **__):
        raise RuntimeError("call detach() and cpu() first")

    def detach(self):
        return self

    def cpu(self):
        return self._values


def test_tensors_are_taken():
    sequence = made_sequence(pictures=lambda wanted: (np.zeros((9, 9, 3), np.uint8) for _ in wanted))
    plain = association_benchmark(lambda image, boxes: boxes, [sequence], threshold=0.9)
    tensors = association_benchmark(lambda image, boxes: OnAnotherDevice(boxes), [sequence], threshold=0.9)
    assert tensors.metrics == plain.metrics


def test_pictures_of_a_folder_and_a_video(tmp_path):
    images = {number: make_media.make_scene(32, 48, seed=1, step=number)[0] for number in (1, 2, 4)}
    folder = tmp_path / "folder" / "img1"
    folder.mkdir(parents=True)
    for number, image in images.items():
        Image.fromarray(image).save(folder / f"{number:06d}.png")
    read = find_pictures(str(tmp_path), "folder")
    for found, number in zip(read([1, 4]), (1, 4), strict=True):
        assert np.array_equal(found, images[number])
    with pytest.raises(BadTracks, match=r"folder/img1: no picture of frame 3, which has boxes"):
        list(read([1, 3]))
    make_media.make_video(tmp_path / "film" / "film.mp4", num_frames=9, size=(48, 64))
    make_media.make_video(tmp_path / "beside.mp4", num_frames=9, size=(48, 64))
    frames = list(find_pictures(str(tmp_path), "film")([1, 3, 9]))
    for found, beside, step in zip(frames, find_pictures(str(tmp_path), "beside")([1, 3, 9]), (0, 2, 8), strict=True):
        drawn = make_media.make_scene(48, 64, seed=0, step=step)[0]
        others = [make_media.make_scene(48, 64, seed=0, step=other)[0] for other in range(9) if other != step]
        distance = [np.abs(found.astype(int) - image).mean() for image in (drawn, *others)]
        assert np.argmin(distance) == 0 and np.array_equal(found, beside)
    for name, wanted, message in (
        ("film", [10], "film.mp4 ends early: frame 9 of 9"),
        ("film", [0], "frames of a video count from 1"),
        ("nowhere", [1], "nowhere: no picture or video there; the pictures should be nowhere/img1/000001.jpg"),
    ):
        with pytest.raises(BadTracks, match=message):
            list(find_pictures(str(tmp_path), name)(wanted))
    (folder / "000002.png").write_bytes(b"nothing")
    with pytest.raises(BadTracks, match=r"000002\.png"):
        list(read([2]))


def test_each_picture_is_read_once_for_all_strides_and_embeddings():
    read = []

    def pictures(wanted):
        for number in wanted:
            read.append(number)
            yield np.full((20, 20, 3), number, np.uint8)

    sequence = made_sequence(pictures=pictures)
    done = []
    association_benchmark(
        lambda image, boxes: boxes, [sequence], strides=(1, 5, 10), threshold=0.9, progress=done.append
    )
    assert read == np.unique(sequence.frames).tolist() and sum(done) == len(read)
    read.clear()
    first, second = embed([sequence], [named_embedding("hsv"), named_embedding("hsv")])
    assert read == np.unique(sequence.frames).tolist()
    assert np.array_equal(first["made"], second["made"])


def test_pictures_that_are_none():
    sequence = made_sequence()
    with pytest.raises(
        BadTracks, match="sequence made: this embedding looks at pixels, and the sequence has no pictures"
    ):
        association_benchmark("hsv", [sequence])
    with pytest.raises(BadTracks, match="sequence made: no picture of frame"):
        association_benchmark("hsv", [replace(sequence, pictures={})])
    with pytest.raises(BadTracks, match="sequence made: pictures end before frame"):
        association_benchmark("hsv", [replace(sequence, pictures=lambda wanted: [])])
    gray = {int(frame): np.zeros((9, 9), np.uint8) for frame in sequence.frames}
    with pytest.raises(BadTracks, match=r"should be \(H, W, 3\) uint8 RGB"):
        association_benchmark("hsv", [replace(sequence, pictures=gray)])


# --- the benchmark -------------------------------------------------------------------------------------------------


def test_perfect_identities_score_100_and_random_ones_little():
    sequences = [made_sequence(f"s{seed}", seed=seed, num_frames=80) for seed in range(2)]
    perfect = association_benchmark("identity", sequences, strides=(5, 10), gaps=(5,))
    assert perfect.metrics == pytest.approx(dict.fromkeys(perfect.metrics, 100))
    assert list(perfect.metrics) == ["AssA@5", "IDF1@5", "AssA@10", "IDF1@10", "rank1@5", "mAP@5"]
    random = association_benchmark("random", sequences, gaps=(5,))
    assert list(random.metrics) == ["AssA", "IDF1", "rank1@5", "mAP@5"]
    assert random.metrics["AssA"] < 40
    assert random.metrics == association_benchmark("random", sequences[::-1], gaps=(5,)).metrics
    assert random.metrics != association_benchmark("random", sequences, gaps=(5,), seed=1).metrics


def test_means_are_over_sequences_that_have_something():
    full, short = made_sequence("full", num_frames=60), made_sequence("short", num_frames=4)
    empty = box_sequence("empty", [], [], [])
    report = association_benchmark("random", [full, short, empty], gaps=(20,), threshold=0.1)
    assert report.sequences["empty"] == {"AssA": None, "IDF1": None, "rank1@20": None, "mAP@20": None}
    assert report.sequences["short"]["rank1@20"] is None and report.sequences["short"]["AssA"] is not None
    assert report.metrics["rank1@20"] == report.sequences["full"]["rank1@20"]
    both = [report.sequences[name]["AssA"] for name in ("full", "short")]
    assert report.metrics["AssA"] == pytest.approx(np.mean(both))
    assert any("empty: no objects" in note for note in report.notes)
    assert any("short: nobody is there both now and 20 frames later" in note for note in report.notes)
    nothing = association_benchmark("random", [empty])
    assert set(nothing.metrics.values()) == {None} and nothing.threshold is None
    # A development set without objects leaves only what needs no threshold.
    without = association_benchmark("random", [full], dev=[empty], gaps=(5,))
    assert without.metrics["AssA"] is None and without.metrics["rank1@5"] is not None
    intervals = without.intervals(association_benchmark("random", [full], gaps=(5,), seed=1), draws=10)
    assert intervals["AssA"] is None and intervals["rank1@5"] is not None


@pytest.mark.parametrize(
    "columns, message",
    [
        (([1, 1], [3, 3], [[0, 0, 1, 1]] * 2), "frame 1: id 3 stands there twice"),
        (([1, 2], [3, 3], [[0, 0, 1, 1], [0, 0, np.nan, 1]]), "frame 2, id 3: the box .* is not finite"),
        (([1], [3], [[5, 0, 1, 1]]), "negative side"),
        (([1], [3, 4], [[0, 0, 1, 1]]), "1 frames, 2 ids and boxes"),
        (([1.5], [3], [[0, 0, 1, 1]]), "frames should be one whole number"),
        (([-1], [3], [[0, 0, 1, 1]]), "not negative"),
    ],
)
def test_faulty_sequences(columns, message):
    with pytest.raises(BadTracks, match=f"sequence s: .*{message}|sequence s: {message}"):
        box_sequence("s", *columns)


def test_faulty_requests():
    sequence = made_sequence()
    with pytest.raises(ValueError, match="strides should be different whole numbers"):
        association_benchmark("random", [sequence], strides=(0,))
    with pytest.raises(ValueError, match="gaps should be different"):
        association_benchmark("random", [sequence], gaps=(5, 5))
    with pytest.raises(BadTracks, match="two sequences are called made"):
        association_benchmark("random", [sequence], dev=[made_sequence(seed=4)])
    with pytest.raises(BadTracks, match="no vectors for sequence made; there are: other"):
        association_benchmark({"other": np.ones((3, 3))}, [sequence])
    with pytest.raises(BadTracks, match="sequence made: embeddings of shape"):
        association_benchmark({"made": np.ones((3, 3))}, [sequence])
    for wrong in (
        {"strides": [0]},
        {"strides": []},
        {"strides": [5, 5]},
        {"ema": 0},
        {"threshold": "nan"},
        {"stride": 1},
    ):
        with pytest.raises(ConfigError):
            build(AssociationSettings, {"embeddings": "hsv", **wrong}, "test")


@pytest.fixture
def gt_folder(tmp_path):
    """Three sequences without pictures; the first five rows of each are to be ignored."""
    for number in range(3):
        sequence = made_sequence(f"seq{number}", seed=number, num_frames=50)
        flags = np.ones(len(sequence), int)
        flags[:5] = 0
        write_gt(tmp_path / "gt", sequence, flags)
    return tmp_path / "gt"


def test_report_from_files(gt_folder):
    report = evaluate_association(
        str(gt_folder), AssociationSettings(embeddings="random", against="identity", draws=50)
    )
    assert report.benchmark == "association" and list(report.sequences) == ["seq0", "seq1", "seq2"]
    assert list(report.metrics) == ["AssA", "IDF1", "rank1@5", "mAP@5", "rank1@20", "mAP@20", "rank1@50", "mAP@50"]
    stored = orjson.loads(report.as_json())
    assert (
        stored["settings"]["stride"] == 10 and stored["settings"]["memory"] == 10 and stored["settings"]["ema"] == 0.5
    )
    against = stored["settings"]["against"]
    assert against["metrics"]["AssA"] == pytest.approx(100) and against["intervals"]["AssA"]["high"] < 0
    assert against["intervals"]["AssA"]["difference"] == pytest.approx(stored["metrics"]["AssA"] - 100)
    assert any(note.startswith("rank1@5: random ") and "identity 100.0" in note for note in report.notes)
    assert any("bootstrap over people, 50 draws" in note for note in report.notes)
    assert stored["metrics"]["rank1@50"] is None and against["intervals"]["rank1@50"] is None
    # The same from Python: rows with flag 0 are no objects.
    sequences = []
    for number in range(3):
        whole = made_sequence(f"seq{number}", seed=number, num_frames=50)
        sequences.append(box_sequence(whole.name, whole.frames[5:], whole.ids[5:], whole.boxes[5:]))
    assert association_benchmark("random", sequences).metrics == pytest.approx(report.metrics)


def test_development_sequences_are_not_scored_unless_asked_for(gt_folder):
    settings = AssociationSettings(embeddings="random", dev=("seq1",))
    report = evaluate_association(str(gt_folder), settings)
    assert list(report.sequences) == ["seq0", "seq2"]
    assert report.settings["threshold_chosen_on"] == ["seq1"] and not any("flatter" in note for note in report.notes)
    asked = evaluate_association(str(gt_folder), settings.model_copy(update={"sequences": ("seq1", "seq2")}))
    assert list(asked.sequences) == ["seq1", "seq2"] and any("(seq1)" in note for note in asked.notes)
    assert asked.settings["threshold"] == report.settings["threshold"]
    assert asked.sequences["seq2"] == report.sequences["seq2"]
    with pytest.raises(BadTracks, match="unknown sequence 'seq9'; did you mean 'seq"):
        evaluate_association(str(gt_folder), settings.model_copy(update={"dev": ("seq9",)}))


def test_pixels_from_beside_the_ground_truth_or_elsewhere(gt_folder, tmp_path):
    settings = AssociationSettings(embeddings="hsv", sequences=("seq0",), threshold=0.5)
    with pytest.raises(BadTracks, match="seq0: no picture or video there"):
        evaluate_association(str(gt_folder), settings)
    whole = made_sequence("seq0", seed=0, num_frames=50)
    colours = np.random.default_rng(0).integers(0, 256, (200, 3))
    for folder in (gt_folder / "seq0" / "img1", tmp_path / "elsewhere" / "seq0" / "img1"):
        folder.mkdir(parents=True)
        for frame in np.unique(whole.frames):
            image = np.zeros((480, 640, 3), np.uint8)
            for row in np.flatnonzero(whole.frames == frame):
                x0, y0, x1, y1 = np.clip(whole.boxes[row], 0, 640).astype(int)
                image[y0:y1, x0:x1] = colours[whole.ids[row]]
            Image.fromarray(image).save(folder / f"{frame:06d}.png", compress_level=1)
    beside = evaluate_association(str(gt_folder), settings)
    elsewhere = settings.model_copy(update={"frames": str(tmp_path / "elsewhere")})
    assert evaluate_association(str(gt_folder), elsewhere).metrics == beside.metrics
    assert beside.metrics["rank1@5"] > 80 and beside.settings["threshold_chosen_on"] == "given"
    flat = tmp_path / "seq0.txt"
    flat.write_text((gt_folder / "seq0" / "gt" / "gt.txt").read_text())
    with pytest.raises(BadTracks, match="the sequence has no pictures"):
        evaluate_association(str(flat), settings)
    assert evaluate_association(str(flat), elsewhere).metrics == beside.metrics


@needs_data("mot15")
def test_reference_table():
    """The table of the benchmark's description, HSV row, at the threshold .438 that gives all of its numbers."""
    names = ("TUD-Stadtmitte", "PETS09-S2L1")
    settings = AssociationSettings(
        embeddings="hsv", against="identity", strides=(1, 5, 10, 20), threshold=0.438, sequences=names, draws=10
    )
    report = evaluate_association(str(MOT15), settings)
    expected = {"AssA@1": 89.3, "IDF1@1": 93.7, "AssA@5": 74.1, "IDF1@5": 84.8, "AssA@10": 64.1, "IDF1@10": 78.9}
    expected |= {"AssA@20": 61.3, "IDF1@20": 75.7, "rank1@20": 75.7, "mAP@20": 84.7, "rank1@50": 58.8}
    for name, value in expected.items():
        assert report.metrics[name] == pytest.approx(value, abs=0.051), name
    perfect = report.settings["against"]["metrics"]
    assert perfect == pytest.approx(dict.fromkeys(perfect, 100))
    random = evaluate_association(
        str(MOT15), settings.model_copy(update={"embeddings": "random", "against": None, "threshold": None})
    )
    assert all(5 < random.metrics[f"AssA@{stride}"] < 22 for stride in (1, 5, 10, 20))
