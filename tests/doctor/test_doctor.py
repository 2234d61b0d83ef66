"""What the doctor finds, on this machine and in answers that other machines would give."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import orjson
import pytest

from tests.s3_server import s3_server
from trackmill.jobs import doctor
from trackmill.pipeline.doctor import machine, packages, store
from trackmill.pipeline.doctor.accelerator import judge as judge_gpu
from trackmill.pipeline.doctor.asking import NoAnswer, ask_program, ask_python
from trackmill.pipeline.doctor.cluster import check_authentication
from trackmill.pipeline.doctor.cluster import judge as judge_cluster
from trackmill.pipeline.doctor.compiler import check_compiler
from trackmill.pipeline.doctor.examine import Check, examine
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.pipeline.storage import retries

MB = 1 << 20


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {each.about: each.level for each in findings}


def test_a_check_that_hangs_or_breaks_hides_no_other() -> None:
    def breaks() -> list[Finding]:
        raise RuntimeError("the key AKIAIOSFODNN7EXAMPLE is wrong")  # a key's shape, which is never shown

    checks = [
        Check("slow", lambda: time.sleep(60) or []),
        Check("broken", breaks),
        Check("fine", lambda: [Finding(about="fine", said="all well")]),
    ]
    found = list(examine(checks, timeout_s=1.0))
    assert levels(found) == {"slow": Level.FAULT, "broken": Level.FAULT, "fine": Level.OK}
    assert "no answer in 1 s" in found[0].said
    assert "RuntimeError" in found[1].said and "AKIAIOSFODNN7EXAMPLE" not in found[1].said


def test_a_warning_says_how_to_mend_it() -> None:
    with pytest.raises(AssertionError, match="memory"):
        Finding(about="memory", level=Level.WARNING, said="little")


def test_pins_are_read_for_this_python() -> None:
    text = (
        "# made by a program\n\nray==2.60.0\nscipy==1.17.1 ; python_full_version < '3.12'\n"
        "scipy==1.18.1 ; python_full_version >= '3.12'\nnumpy>=2\nPy_YAML==6.0  # with a remark\n"
    )
    scipy = "1.17.1" if sys.version_info < (3, 12) else "1.18.1"
    assert packages.read_pins(text) == {"ray": "2.60.0", "scipy": scipy, "py-yaml": "6.0"}


def test_other_versions_than_pinned(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("ray==1.0\npillow==1.0\nnobody-has-this==1\n")
    (found,) = [each for each in packages.check_packages(pins) if each.about == "pins"]
    assert found.level is Level.WARNING and "(pinned 1.0)" in found.said and "pillow" not in found.said
    pins.write_text("pillow==1.0\n")
    (found,) = [each for each in packages.check_packages(pins) if each.about == "pins"]
    assert found.level is Level.NOTE and "pillow" in found.said
    pins.write_text("what is this? \n")
    (found,) = [each for each in packages.check_packages(pins) if each.about == "pins"]
    assert found.level is Level.WARNING and str(pins) in found.said
    with_tag = {"torch": "2.14.1+cpu"}
    pins.write_text("torch==2.14.1\n")
    assert [each.level for each in packages._against_pins(with_tag, pins)] == [Level.OK]


def test_two_opencv_wheels() -> None:
    (found,) = packages._several_opencv({"opencv-python": "5", "opencv-contrib-python-headless": "5", "numpy": "2"})
    assert found.level is Level.WARNING and "pip uninstall opencv-contrib-python-headless opencv-python" in found.mend
    assert not list(packages._several_opencv({"opencv-python": "5", "numpy": "2"}))


def test_too_many_workers_and_a_small_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (4000 * MB, 8000 * MB))
    monkeypatch.setattr(machine, "usable_cpus", lambda: 2.0)
    found = machine.check_machine("mine", 2, str(tmp_path))
    assert levels(found)["memory"] is Level.OK and levels(found)["cpus"] is Level.OK
    found = machine.check_machine("mine", 5, str(tmp_path))
    (memory,) = [each for each in found if each.about == "memory"]
    fit = (4000 * MB - machine.RAY_BYTES) // machine.MINING_WORKER_BYTES
    assert memory.level is Level.WARNING and memory.mend.startswith(f"at most {fit} fit")
    assert levels(found)["cpus"] is Level.WARNING
    monkeypatch.setattr(machine, "free_bytes", lambda url: 100 * MB)
    disks = [each for each in machine.check_machine("mine", 1, str(tmp_path)) if "disk" in each.about]
    assert [each.level for each in disks] == [Level.WARNING, Level.WARNING]
    assert "TMPDIR" in disks[0].mend


def test_shared_memory_is_a_fault_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "/dev/shm has 64 MB in all, too little to pass batches of large pictures between processes: make it larger"
    monkeypatch.setattr(machine, "too_little_shared_memory", lambda: said)
    for job, level in (("train", Level.FAULT), ("mine", Level.WARNING)):
        (found,) = [each for each in machine.check_machine(job, 1) if each.about == "shared memory"]
        assert found.level is level and found.said.startswith("/dev/shm has 64 MB") and found.mend == "make it larger"


GPU = {"name": "A card", "free": 70 << 30, "total": 80 << 30, "bfloat16": True, "computes": True}
TORCH = {"version": "2.15.0", "cuda": "13.2", "available": True, "devices": [GPU], "error": ""}


@pytest.mark.parametrize(
    ("cards", "torch", "level", "said"),
    [
        (["A card, 580.1"], TORCH, Level.OK, "driver 580.1"),
        ([], TORCH | {"available": False, "devices": []}, Level.NOTE, "no GPU"),
        (["A card, 580.1"], TORCH | {"available": False, "cuda": "", "devices": []}, Level.FAULT, "built for CPUs"),
        (["A card, 470.1"], TORCH | {"available": False, "devices": []}, Level.FAULT, "built for CUDA 13.2"),
        (["A card, 580.1"], TORCH | {"error": "CUDA error: no kernel image"}, Level.FAULT, "no kernel image"),
        (["A card, 580.1"], TORCH | {"devices": [GPU | {"free": 9 << 30}]}, Level.WARNING, "somebody else"),
        (["A card, 580.1"], TORCH | {"devices": [GPU | {"computes": False}]}, Level.FAULT, "computes wrongly"),
    ],
)
def test_gpus(cards: list[str], torch: dict[str, object], level: Level, said: str) -> None:
    (found,) = judge_gpu(cards, torch)
    assert found.level is level and said in found.said


def test_questions_to_another_process() -> None:
    assert ask_python("answer = {'sum': 1 + 1}", 60) == {"sum": 2}
    assert ask_python("print('noise'); answer = {}", 60) == {}
    with pytest.raises(NoAnswer, match="ValueError: of the driver"):
        ask_python("raise ValueError('of the driver')", 60)
    with pytest.raises(NoAnswer, match="signal 11"):
        ask_python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60)
    with pytest.raises(NoAnswer, match="no answer in 1 s"):
        ask_python("import time; time.sleep(60)", 1)
    assert ask_program("no-such-program-here") is None


def test_ray_token(tmp_path: Path) -> None:
    def look(**variables: str) -> tuple[Level, str]:
        (found,) = check_authentication("head:6379", {"HOME": str(tmp_path), **variables})
        return found.level, found.said

    assert look()[0] is Level.WARNING
    assert look(RAY_AUTH_MODE="tokens")[0] is Level.FAULT
    assert look(RAY_AUTH_MODE="disabled")[0] is Level.WARNING
    assert look(RAY_AUTH_MODE="token")[0] is Level.FAULT
    assert look(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="s3cret")[0] is Level.OK
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("s3cret")
    token.chmod(0o644)
    level, said = look(RAY_AUTH_MODE="token")
    assert level is Level.WARNING and "other users" in said and "s3cret" not in said
    token.chmod(stat.S_IRUSR)
    assert look(RAY_AUTH_MODE="token")[0] is Level.OK
    assert check_authentication("", {"HOME": str(tmp_path)}) == []


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        ({"error": "nothing answers there"}, Level.FAULT, "its port is open"),
        ({"error": "Version mismatch: 2.59 and 2.60"}, Level.FAULT, "must be the same"),
        ({"error": "AuthenticationError: InvalidAuthToken"}, Level.FAULT, "RAY_AUTH_TOKEN"),
        ({"error": "", "nodes": [True, True, False], "cpus": 8.0, "gpus": 1.0}, Level.OK, ""),
        ({"error": "", "nodes": [True], "cpus": 0.0, "gpus": 0.0}, Level.WARNING, "worker nodes"),
    ],
)
def test_ray_cluster(answer: dict[str, object], level: Level, said: str) -> None:
    found = judge_cluster("head:6379", "2.60.0", answer)
    assert found.level is level and said in found.mend and "head:6379" in found.said


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason='needs pip install -e ".[deepspeed]"')
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    (found,) = check_compiler()
    assert found.level is Level.WARNING and "no-such-compiler" in found.said
    built = tmp_path / "deepspeed_shm_comm"
    built.mkdir()
    (built / "deepspeed_shm_comm.so").write_bytes(b"")
    (found,) = check_compiler()
    assert found.level is Level.OK


def test_a_local_output_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("x")
    found = store.check_output(str(tmp_path))
    assert {each.about for each in found} == {"output", "clock"}
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    store.check_output(str(tmp_path / "new" / "folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    (found,) = store.check_output(str(tmp_path / "kept.txt"))
    assert found.level is Level.FAULT and "kept.txt" in found.said
    assert found.mend == "give a folder, or a name that nothing has yet"
    (found,) = store.check_output("https://host/set")
    assert found.level is Level.FAULT and found.mend == "give another URL, of a folder or a bucket"
    (found,) = store.check_output("memory://set")
    assert found.level is Level.FAULT and "gone when this process ends" in found.mend


def test_an_input(tmp_path: Path) -> None:
    (found,) = store.check_input(str(tmp_path))
    assert found.level is Level.FAULT and "no file" in found.said
    (found,) = store.check_input(str(tmp_path / "missing"))
    assert found.level is Level.FAULT and "missing" in found.said
    assert "disk is mounted" in found.mend and "AWS" not in found.mend  # no bucket is meant
    (found,) = store.check_input("https://127.0.0.1:9/x")  # the port that nobody listens on
    assert found.level is Level.FAULT and "Cannot connect" in found.said and "network" in found.mend
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.jpg").write_bytes(os.urandom(100))
    (found,) = store.check_input(str(tmp_path / "*" / "*.jpg"))
    assert "first file listed" in found.said


def test_a_slow_store_and_a_clock_that_differs() -> None:
    assert store._judge("data", "it", 0.001, 1e9, local=False).level is Level.OK
    assert store._judge("data", "it", 0.9, 1e9, local=False).level is Level.WARNING
    assert store._judge("data", "it", 0.001, 1e6, local=True).level is Level.WARNING
    for theirs, level in ((100.5, Level.OK), (160, Level.WARNING), (-400, Level.FAULT)):
        (found,) = store.judge_clock(theirs, 100, "s3://bucket")
        assert found.level is level
    assert "behind ours" in store.judge_clock(-400, 100, "s3://bucket")[0].said
    assert store.judge_clock(None, 100, "s3://bucket") == []
    busy = store._failed("data", "s3://bucket", "listed and read", OSError(16, "Service Unavailable"))
    assert busy.level is Level.FAULT and "wait" in busy.mend


def test_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with s3_server() as (host, port):
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
        ):
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="mined")
        found = store.check_output("s3://mined/set")
        assert {each.about for each in found} == {"output", "clock"}, found
        assert max(each.level for each in found) < Level.FAULT
        assert "Contents" not in client.list_objects_v2(Bucket="mined")
        client.put_object(Bucket="mined", Key="raw/a/one.jpg", Body=b"x" * 5000)
        (found,) = store.check_input("s3://mined/raw")
        assert "first file listed" in found.said
        (found,) = store.check_output("s3://another/set")
        assert found.level is Level.FAULT and found.mend


def test_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = doctor.main(["--job", "train", "--json", "--output", str(tmp_path / "out")])
    answer = orjson.loads(capsys.readouterr().out)
    told = {each["about"]: each["level"] for each in answer["findings"]}
    assert {"python", "pins", "memory", "ray", "deepspeed", "output"} <= set(told)
    assert (answer["worst"] == "fault") == (code == 1)
    bad = tmp_path / "file"
    bad.write_text("")
    assert doctor.main(["--output", str(bad)]) == 1
    printed = capsys.readouterr().out
    assert "fault    output: " in printed and "         mend: " in printed and " things looked at: " in printed
