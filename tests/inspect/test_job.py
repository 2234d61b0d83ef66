"""The command, as a person runs it: output, exit status, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.make_dataset import make_dataset
from tests.s3_server import s3_server
from trackmill.jobs.audit_negatives import main as audit
from trackmill.jobs.inspect_shards import main
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.run import make_sidecar

SCRIPT = Path(__file__).parents[2] / "jobs" / "inspect_shards.py"


@pytest.fixture
def dataset(tmp_path):
    return open_dataset(make_dataset(str(tmp_path / "set")).root)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120)


def test_table_by_default_from_any_folder(dataset, tmp_path):
    result = run("set", cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert "part-00000001.tar" in result.stdout and "7 items: 5 ok, 1 quarantined, 1 skipped" in result.stdout


@pytest.mark.parametrize("count", [[], ["--max-samples", "4"]])
def test_a_missing_shard_is_named_and_the_rest_is_shown(dataset, tmp_path, capsys, count):
    lost = Path(dataset.shard_url(dataset.shards[0].name))
    lost.unlink()
    arguments = [dataset.url, "--html", str(tmp_path / "sheet.html"), "--stats", "--json", *count]
    assert main(arguments) == 3
    shown = capsys.readouterr()
    statistics = json.loads(shown.out)
    assert 0 < statistics["samples_read"] < len(dataset.stored)
    assert statistics["unreadable"] == {lost.name: "the file is missing"}
    assert f"{lost.name}: the file is missing; samples of it are left out" in shown.err
    assert "the file is missing" in (tmp_path / "sheet.html").read_text()
    for shard in dataset.shards[1:]:
        Path(dataset.shard_url(shard.name)).unlink()
    assert main(arguments) == 2
    assert lost.name in capsys.readouterr().err


def test_error_of_the_user_is_one_line_without_traceback(tmp_path):
    result = run("nothing", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and "no data set here" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipe:cat x.tar"], "looks like a shell command"),
        (["s3://key:secret@bucket/x"], "holds a user name or password"),
        (["{root}", "--key", "images-pik1"], "did you mean images-pic"),
        (["{root}", "--key", "images-"], "several samples hold 'images-': images-"),
        (["{root}", "--key", "{broken}"], "was quarantined, not stored: cut off"),
        (["{root}", "--overlay", "x.png"], "name it with --key"),
        (["{root}", "--html", "pipe:cat"], "looks like a shell command"),
        (["{missing}.tar"], "no such tar"),
    ],
)
def test_mistakes_exit_with_2(dataset, capsys, arguments, message):
    broken = next(row.key for row in dataset.rows if row.status == "quarantined")
    names = {"root": dataset.url, "broken": broken, "missing": f"{dataset.url}/missing"}
    assert main([argument.format(**names) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and "secret" not in err and err.count("\n") == 1 and out == ""


def test_verify_says_ok_or_names_each_fault(dataset, capsys):
    assert main([dataset.url, "--verify"]) == 0
    assert capsys.readouterr().out == "OK: 3 shards, 5 samples verified\n"
    Path(dataset.shard_url("part-00000001.tar")).unlink()
    assert main([dataset.url, "--verify"]) == 1
    assert capsys.readouterr().out.startswith("part-00000001.tar: is missing; delete receipts/part-00000001.parquet")
    assert main([dataset.url, "--verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0]["shard"] == "part-00000001.tar"


def test_one_sample_as_text_json_and_picture(dataset, tmp_path, capsys):
    key = dataset.stored[0].key
    assert main([dataset.url, "--key", key, "--overlay", str(tmp_path / "x.png")]) == 0
    assert Image.open(tmp_path / "x.png").size == (64, 48)
    assert key in capsys.readouterr().out
    assert main([dataset.url, "--key", key, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == key


def test_keys_are_listed_and_found_by_a_part_of_key_or_uri(dataset, capsys):
    rows = [(row.key, row.status, row.uri) for row in dataset.rows]
    assert main([dataset.url, "--keys"]) == 0
    assert [tuple(line.split("\t")) for line in capsys.readouterr().out.splitlines()] == rows
    assert main([dataset.url, "--keys", "PIC1", "--json"]) == 0
    wanted = [row for row in rows if "pic1" in (row[0] + row[2]).lower()]
    assert [tuple(json.loads(line).values()) for line in capsys.readouterr().out.splitlines()] == wanted and wanted
    assert main([dataset.url, "--keys", "nothing like it"]) == 0
    assert capsys.readouterr().out == "no sample has 'nothing like it' in its key or URI\n"
    assert main([dataset.url, "--key", "images-pic1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"].startswith("images-pic1-")


def test_statistics_summary_and_sheet(dataset, tmp_path, capsys):
    assert main([dataset.url, "--stats", "--json", "--max-samples", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["samples_read"] == 2
    assert main([dataset.url, "--json", "--html", str(tmp_path / "sheet.html"), "--max-samples", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["statuses"] == {"ok": 5, "quarantined": 1, "skipped": 1}
    assert (tmp_path / "sheet.html").read_text().count("<article") == 3


def test_damaged_receipt_is_a_warning_in_the_table_and_a_fault_in_verify(dataset, capsys):
    Path(dataset.layout.receipt("part-00000001.parquet")).write_bytes(b"?")
    assert main([dataset.url]) == 0
    assert "warning: " in capsys.readouterr().out
    assert main([dataset.url, "--verify"]) == 1


def test_everything_works_on_s3(monkeypatch, capsys):
    boto3 = pytest.importorskip("boto3")
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="shards")
        layout = make_dataset("s3://shards/set", num_images=2, num_frames=3)
        dataset = open_dataset(layout.root)
        assert main([layout.root, "--verify"]) == 0
        assert main([layout.root, "--key", dataset.stored[0].key, "--overlay", "s3://shards/x.png"]) == 0
        assert main([layout.root, "--html", "s3://shards/sheet.html"]) == 0
        assert main([layout.shards]) == 0
        assert "OK: 2 shards, 3 samples verified" in capsys.readouterr().out
        make_sidecar(layout.root, "negatives", settings={"detector": "proposals"})
        assert audit([layout.root, "--html", "s3://shards/audit.html"]) == 0
        assert "sidecar negatives" in capsys.readouterr().out


def test_closed_pipe_is_no_error(dataset):
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run([sys.executable, SCRIPT, dataset.url, "--stats"], stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert result.returncode == 0 and result.stderr == b""
