"""Folders that people have: links in them, folders that cannot be read, and names that look like patterns."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.schemas.errors import StorageError


def names(folder: Path) -> list[str]:
    return [os.path.relpath(file.uri, folder) for file in list_files(str(folder))]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    there, folder = tmp_path / "there", tmp_path / "in"
    (there / "B").mkdir(parents=True)
    (there / "B" / "gt.txt").write_text("12345")
    (there / "x.jpg").write_text("1")
    (folder / "A").mkdir(parents=True)
    (folder / "A" / "gt.txt").write_text("1")
    (folder / "B").symlink_to(there / "B")
    (folder / "x.jpg").symlink_to(there / "x.jpg")
    assert names(folder) == ["A/gt.txt", "B/gt.txt", "x.jpg"]
    assert [file.size for file in list_files(str(folder))] == [1, 5, 1]
    assert [file.uri for file in list_files(f"{folder}/*/gt.txt")] == [f"{folder}/A/gt.txt", f"{folder}/B/gt.txt"]
    (tmp_path / "linked").symlink_to(folder)
    assert names(tmp_path / "linked") == names(folder)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "here").symlink_to("here")
    (tmp_path / "a" / "x").write_text("x")
    assert names(tmp_path / "a") == ["here", "x"]  # a link to itself leads nowhere, and is listed as such


def test_folders_that_all_link_to_each_other_are_an_error_and_no_endless_listing(tmp_path: Path) -> None:
    """Thirty of them have more paths than could ever be listed."""
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        for other in range(30):
            (tmp_path / f"{number}" / f"to{other}").symlink_to(tmp_path / f"{other}")
    with pytest.raises(StorageError, match="9 links to folders lie one in the other; name the folders that you mean"):
        list_files(str(tmp_path))


def test_a_link_to_nothing_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    assert names(tmp_path) == ["gone.jpg"]
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg: a link to nowhere\.jpg, where nothing is"):
        list_files(str(tmp_path / "gone.jpg"))


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git" / "annex").mkdir(parents=True)
    (tmp_path / ".git" / "annex" / "x.jpg").write_text("x")
    (tmp_path / "x.jpg").symlink_to(".git/annex/x.jpg")
    assert names(tmp_path) == ["x.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(StorageError, match=r"closed: cannot be listed \(Permission denied\)"):
        list_files(str(tmp_path))


@pytest.mark.parametrize("root", ["memory://links", "tmp"])
def test_what_is_removed_is_what_was_named(root: str, tmp_path: Path) -> None:
    root = str(tmp_path) if root == "tmp" else root
    for name in ("run[1]/step", "run1/step", "runs/step", "run*/step"):
        publish_bytes(f"{root}/{name}/model.safetensors", b"x")
    remove(f"{root}/run[1]/step")
    remove(f"{root}/run*/step")
    remove(f"{root}/nothing")
    assert {file.uri.split("/")[-3] for file in list_files(root)} == {"run1", "runs"}
    if root.startswith("memory"):
        assert not fsspec.filesystem("memory").exists("/links/run[1]/step")


def test_a_link_to_nothing_says_so_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError) as raised:
        read_bytes(str(tmp_path / "a.jpg"))
    assert error_text(raised.value) == f"{tmp_path}/a.jpg: a link to {tmp_path}/gone, where nothing is"
    with pytest.raises(FileNotFoundError) as raised:
        read_bytes(str(tmp_path / "b.jpg"))
    assert error_text(raised.value) == f"{tmp_path}/b.jpg: no such file or folder"


def test_a_link_to_nothing_that_matches_a_glob_does_not_hide_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"xy")
    (tmp_path / "z.jpg").symlink_to("gone.jpg")
    assert [(Path(file.uri).name, file.size) for file in list_files(f"{tmp_path}/*.jpg")] == [
        ("a.jpg", 2),
        ("z.jpg", 0),
    ]


def test_a_path_through_a_link_to_nothing_names_the_link(tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError) as caught:
        read_bytes(f"{tmp_path}/disk/set/a.jpg")
    assert error_text(caught.value) == f"{tmp_path}/disk: a link to {tmp_path}/unmounted, where nothing is"
