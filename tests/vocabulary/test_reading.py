"""Vocabularies out of whatever `--classes` takes: encoded once and kept, read from files and stores, or LVIS."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip", reason='needs pip install -e ".[detic]"')

import trackmill.models.clip  # noqa: E402
from tests.clip.towers import small_state  # noqa: E402
from tests.shared_data import DATA  # noqa: E402
from trackmill.jobs import make_vocabulary  # noqa: E402
from trackmill.models.detic.lvis_names import LVIS_NAMES  # noqa: E402
from trackmill.models.detic.vocabulary import Vocabulary, as_vocabulary  # noqa: E402
from trackmill.pipeline.vocabulary import (  # noqa: E402
    encoding,
    read_class_names,
    read_vocabulary,
    reading,
    write_vocabulary,
)
from trackmill.schemas.errors import InputError, StorageError  # noqa: E402

LVIS_FILE = DATA.parent / "reference" / "detic_r50" / "lvis_vocabulary.npz"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small CLIP as a file."""
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(small_state(), path)
    return str(path)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of names at each call of the tower."""
    counted: list[int] = []
    encode = encoding._encode

    def counting(tokens: Any, *tower: Any) -> Any:
        counted.append(len(tokens))
        return encode(tokens, *tower)

    monkeypatch.setattr(encoding, "_encode", counting)
    return counted


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_names_are_encoded_as_a_and_the_name(clip: str) -> None:
    vocabulary = read_vocabulary("person, traffic light", clip)
    with torch.inference_mode():
        tower = trackmill.models.clip.load(clip)
        expected = tower(trackmill.models.clip.tokenize(["a person", "a traffic light"])).numpy()
    assert np.allclose(vocabulary.embeddings, expected, atol=1e-6)
    assert vocabulary.names == ("person", "traffic light")
    assert vocabulary == as_vocabulary(["person", "traffic light"], clip) == as_vocabulary("person,traffic light", clip)
    assert vocabulary == as_vocabulary(np.array(["person", "traffic light"]), clip)
    assert vocabulary == as_vocabulary(np.array(["person", "traffic light"], object), clip)
    assert vocabulary == as_vocabulary(["person", "traffic light"], small_state())


def test_many_names_in_batches(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["very " * (number % 3) + f"old thing {number}" for number in range(7)]
    at_once = read_vocabulary(names, clip)
    monkeypatch.setattr(encoding, "_BATCH", 3)
    monkeypatch.setattr(encoding, "_ENCODER", 99)  # so that the cache does not know them
    assert np.allclose(read_vocabulary(names, clip).embeddings, at_once.embeddings, atol=1e-6)


def test_the_same_names_are_encoded_once(clip: str, encodings: list[int], tmp_path: Path) -> None:
    first = read_vocabulary("dog,cat", clip)
    assert read_vocabulary(["dog", "cat"], clip) == first and encodings == [2]
    assert read_vocabulary("dog,cat", clip).identity == first.identity != first.sha256
    with pytest.raises(InputError, match=r"^the vocabulary: its vectors have 48 numbers, Detic compares 512"):
        read_vocabulary("dog,cat", clip).check_width(512, "Detic")
    read_vocabulary("cat,dog", clip)
    assert encodings == [2, 2]
    torch.save(small_state(seed=1), tmp_path / "other.pt")
    other = read_vocabulary("dog,cat", str(tmp_path / "other.pt"))
    assert encodings == [2, 2, 2] and other.identity != first.identity


def test_a_damaged_or_foreign_entry_of_the_cache_is_made_again(clip: str, cache: Path, encodings: list[int]) -> None:
    first = read_vocabulary("dog,cat", clip)
    (kept,) = (cache / "vocabularies").glob("*.npz")
    whole = kept.read_bytes()
    write_vocabulary(Vocabulary(first.embeddings + 1, first.names), str(kept))
    for data in (b"", whole[:100], npy(first.embeddings), kept.read_bytes()):
        kept.write_bytes(data)
        assert read_vocabulary("dog,cat", clip) == first
        assert kept.read_bytes() == whole
    assert encodings == [2] * 5


def test_a_cache_that_cannot_be_written(clip: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def full(url: str, data: bytes) -> None:
        raise OSError(28, "No space left on device", url)

    monkeypatch.setattr(encoding, "publish_bytes", full)
    assert read_vocabulary("dog,cat", clip).names == ("dog", "cat")
    assert "the vocabulary is not kept for the next time" in caplog.text


def test_processes_that_encode_the_same_at_once(clip: str, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_vocabulary("dog,cat", clip), range(4)))
    assert len({each.sha256 for each in found}) == 1
    assert len(list((cache / "vocabularies").iterdir())) == 1


def test_a_name_that_clip_cannot_read_and_weights_of_others(clip: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dog' is too long for CLIP"):
        read_vocabulary(["dog " * 80], clip)
    torch.save({"backbone.weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt: no text tower of CLIP in it"):
        read_vocabulary("dog", str(tmp_path / "other.pt"))
    few = small_state()
    few["token_embedding.weight"] = few["token_embedding.weight"][:1000].clone()
    torch.save(few, tmp_path / "few.pt")
    with pytest.raises(InputError, match=r"few\.pt: knows 1,000 tokens .* numbers up to 49,407"):
        read_vocabulary("dog", str(tmp_path / "few.pt"))
    with pytest.raises(FileNotFoundError, match="gone"):
        read_vocabulary("dog", str(tmp_path / "gone.pt"))


def test_a_faulty_name_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "fetch_published", None)
    with pytest.raises(InputError, match="too long for CLIP"):
        read_vocabulary(["cat", "dog " * 80])


def test_names_that_are_one_text_to_clip(clip: str, caplog: Any) -> None:
    vocabulary = read_vocabulary("Apple,pear,apple", clip)
    assert np.array_equal(vocabulary.embeddings[0], vocabulary.embeddings[2])
    assert "CLIP reads 'Apple' and 'apple' as one text" in caplog.text


@pytest.fixture(params=["path", "store"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, bytes], str]:
    """Writes a file and says where it is."""

    def write(name: str, data: bytes) -> str:
        if request.param == "path":
            (tmp_path / name).write_bytes(data)
            return str(tmp_path / name)
        url = f"memory://vocabulary-{tmp_path.name}/{name}"
        fsspec.filesystem("memory").pipe_file(url, data)
        return url

    return write


VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def test_vectors_from_files_with_names_beside(put: Callable[[str, bytes], str], caplog: Any) -> None:
    url = put("mine.npy", npy(VECTORS.astype(np.float16)))
    assert read_vocabulary(url).names == ("class 0", "class 1", "class 2")
    assert as_vocabulary(url).where.endswith("mine.npy")
    with pytest.raises(InputError, match=r"mine\.npy: holds no names"):
        read_class_names(url)
    put("mine.txt", b"dog\ncat\nhorse\n")
    assert read_vocabulary(url) == Vocabulary(VECTORS, ("dog", "cat", "horse"))
    assert read_class_names(url) == ("dog", "cat", "horse")
    assert read_vocabulary(url, "of no use").names == ("dog", "cat", "horse")
    assert "text weights are of no use: " in caplog.text
    put("mine.txt", b"dog\ncat\n")
    with pytest.raises(InputError, match=r"mine\.npy: 2 names for 3 vectors"):
        read_vocabulary(url)


def test_what_is_written_is_read_again(put: Callable[[str, bytes], str], clip: str) -> None:
    url = put("mine.npz", b"")
    for vocabulary in (read_vocabulary("dog,cat", clip), Vocabulary(VECTORS, ("a", "b", "c"))):
        write_vocabulary(vocabulary, url)
        found = read_vocabulary(url)
        assert found == vocabulary and found.identity == vocabulary.identity
        assert read_class_names(url) == vocabulary.names
    with pytest.raises(InputError, match=r"mine\.npy: a vocabulary is written as \.npz"):
        write_vocabulary(vocabulary, url.replace(".npz", ".npy"))


def test_a_path_is_a_file_whatever_it_is_called(clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dog").write_text("cat\nhorse\n")
    assert as_vocabulary(Path("dog"), clip) == read_vocabulary("cat,horse", clip)
    with pytest.raises(FileNotFoundError, match="lvis"):
        read_vocabulary(Path("lvis"), clip)


def test_names_from_a_store(clip: str) -> None:
    url = f"memory://names-{os.urandom(4).hex()}/classes"
    fsspec.filesystem("memory").pipe_file(url, b"dog\ncat\n")
    assert read_vocabulary(url, clip) == read_vocabulary("dog,cat", clip)


def test_published_weights_need_no_network_where_they_lie(
    clip: str, cache: Path, monkeypatch: pytest.MonkeyPatch, encodings: list[int]
) -> None:
    data = Path(clip).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    url = f"memory://openai-{os.urandom(4).hex()}/{sha256}/ViT-B-32.pt"
    monkeypatch.setattr(encoding, "TEXT_WEIGHTS_URL", url)
    with pytest.raises(
        StorageError, match=r"download memory://openai.*/ViT-B-32\.pt where .* put it here as .*"
    ) as told:
        read_vocabulary("dog")
    assert str(told.value).endswith(str(cache / "weights" / "ViT-B-32.pt"))
    (cache / "weights" / "ViT-B-32.pt").write_bytes(b"of another version")
    with pytest.raises(StorageError, match="put it here"):
        read_vocabulary("dog")
    (cache / "weights" / "ViT-B-32.pt").write_bytes(data)
    by_hand = read_vocabulary("dog")
    assert by_hand.identity == read_vocabulary("dog", clip).identity and encodings == [1]
    (cache / "weights" / "ViT-B-32.pt").unlink()
    assert read_vocabulary("dog", "") == by_hand  # what was made by them needs them no more
    fsspec.filesystem("memory").pipe_file(url, b"<html>sign in first</html>")
    with pytest.raises(InputError, match=r"ViT-B-32\.pt: what came is not the published file"):
        read_vocabulary("cat")
    fsspec.filesystem("memory").pipe_file(url, data)
    read_vocabulary("cat")
    fsspec.filesystem("memory").rm(url)
    assert read_vocabulary("horse").names == ("horse",)  # fetched once
    assert encodings == [1, 1, 1]


def test_lvis(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_class_names("lvis") == LVIS_NAMES and len(LVIS_NAMES) == 1203
    made = np.random.default_rng(0).normal(size=(1203, 8)).astype(np.float16)
    url = f"memory://detic-{os.urandom(4).hex()}/lvis_v1_clip_a+cname.npy"
    fsspec.filesystem("memory").pipe_file(url, npy(made))
    monkeypatch.setattr(reading, "LVIS_URL", url)
    monkeypatch.setattr(reading, "LVIS_SHA256", hashlib.sha256(npy(made)).hexdigest())
    for _ in range(2):
        assert read_vocabulary("lvis") == Vocabulary(made, LVIS_NAMES)
        fsspec.filesystem("memory").store.clear()  # fetched once
    for each in (cache / "weights").iterdir():
        each.unlink()
    with pytest.raises(StorageError, match=r"lvis_v1_clip_a\+cname\.npy where there is a network, and put it here as"):
        read_vocabulary("lvis")


@pytest.mark.skipif(not LVIS_FILE.is_file(), reason="needs the data set ../shared/reference/detic_r50")
def test_lvis_of_detic_itself(cache: Path) -> None:
    with np.load(LVIS_FILE, allow_pickle=False) as stored:
        embeddings, names = stored["embeddings"], stored["names"].tolist()
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "lvis_v1_clip_a+cname.npy").write_bytes(npy(embeddings))
    found = read_vocabulary("lvis")
    assert found.names == tuple(names) and np.array_equal(found.embeddings, embeddings.astype(np.float32))


def test_the_job(clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.txt").write_text("dog\nhot-air balloon\n")
    target = tmp_path / "classes.npz"
    words = ["--classes", str(tmp_path / "classes.txt"), "--text-weights", clip, "--output", str(target)]
    assert make_vocabulary.main(words) == 0
    out = capsys.readouterr().out
    assert (
        "2 classes, vectors of 48 numbers: dog, hot-air balloon" in out and read_vocabulary(str(target)).sha256 in out
    )
    assert read_vocabulary(str(target)) == read_vocabulary("dog,hot-air balloon", clip)
    before = target.read_bytes()
    assert make_vocabulary.main(words) == 0 and target.read_bytes() == before
    assert "(replaced)" in capsys.readouterr().out

    for wrong, said in (
        (["--classes", "dog,,cat", "--output", str(target)], "name 2 is empty"),
        (["--classes", "dog", "--output", "classes.npy"], "give a name that ends so"),
        (["--classes", "gone.npy", "--output", str(target)], "gone.npy"),
        (["--classes", "dog", "--output", "https://host/a.npz", "--text-weights", clip], "cannot be written to"),
    ):
        assert make_vocabulary.main(wrong) != 0
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1 and "Traceback" not in err
