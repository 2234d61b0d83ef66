"""ZeRO keeps what `test_engine.py` asks of the plain engine, in every stage, and exchanges states with it.

Everything runs on processes of their own, because DeepSpeed leaves a process group and settings behind.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch.multiprocessing import ProcessRaisedException

from tests.training.engine_ranks import Outcome, Run, train, train_on_ranks, write_state
from tests.training.engines.test_engine import ADAMW, CASES, SGD, TORCH, same
from trackmill.pipeline.training.engines.base import EngineSettings, OptimSettings

ROOT = Path(__file__).resolve().parents[3]
STAGES = (0, 1, 2, 3)
PARTS = SGD.model_copy(update={"accumulate": 2})

slow = pytest.mark.slow
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="DeepSpeed compiles an operator when it is first used, and there is no g++"
)


def zero(stage: int, **changes: object) -> EngineSettings:
    return EngineSettings(name="deepspeed", zero_stage=stage, **changes)  # type: ignore[arg-type]


def test_a_missing_package_says_what_to_type() -> None:
    code = (
        "import sys; sys.modules['deepspeed'] = None\n"
        "import torch\n"
        "from trackmill.pipeline.training.engines.deepspeed_engine import _import_deepspeed\n"
        "try: _import_deepspeed(torch.device('cpu'))\n"
        "except ImportError as error: print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == (
        'engine.name = "deepspeed" needs an extra: pip install -e ".[deepspeed]" -c constraints.txt; '
        'or set it to "torch"'
    )


# One rank ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Runs of one rank by name; they go on from states of the plain engine, and leave their own."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("alone")
    runs: dict[str, Run] = {}
    for optimiser, optim in (("sgd", SGD), ("adamw", ADAMW)):
        plain = Run(engine=TORCH, optim=optim, batch_norm=True, noise=0.1, save=str(folder / f"plain-{optimiser}"))
        train(plain)
        train(replace(plain, steps=0, save=str(folder / f"fresh-{optimiser}")))
        for stage in STAGES:
            run = replace(plain, engine=zero(stage), save="")
            name = f"{optimiser}-{stage}"
            runs[name] = replace(run, save=str(folder / name))
            runs[f"{name} fresh"] = replace(run, load=str(folder / f"fresh-{optimiser}"))
            runs[f"{name} begun"] = replace(run, steps=0, save=str(folder / f"{name}-begun"))
            runs[f"{name} continued"] = replace(run, first=4, load=str(folder / f"plain-{optimiser}"))
            runs[f"{name} again"] = replace(run, first=4, load=str(folder / name), save=str(folder / f"{name}-again"))
    for stage in STAGES:
        runs[f"parts-{stage}"] = Run(engine=zero(stage), optim=PARTS)
        runs[f"recomputed-{stage}"] = Run(
            engine=zero(stage, activation_checkpointing=True), optim=SGD, batch_norm=True, noise=0.1
        )
        runs[f"bfloat16-{stage}"] = Run(engine=zero(stage, precision="bfloat16"), optim=SGD, steps=6)
        runs[f"unclipped-{stage}"] = Run(engine=zero(stage), optim=SGD.model_copy(update={"clip_norm": 0}))
    outcomes = train_on_ranks(list(runs.values()), 1, folder)
    return dict(zip(runs, outcomes, strict=True))


@slow
@needs_compiler
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
class TestAlone:
    @pytest.mark.parametrize(("optimiser", "optim"), [("sgd", SGD), ("adamw", ADAMW)])
    def test_equals_the_plain_engine(
        self, alone: dict[str, Outcome], stage: int, optimiser: str, optim: OptimSettings
    ) -> None:
        plain = Run(engine=TORCH, optim=optim, batch_norm=True, noise=0.1)
        whole = train(replace(plain, steps=8))
        for name, part in (("", whole.losses[:4]), (" fresh", whole.losses[:4]), (" continued", whole.losses[4:])):
            assert alone[f"{optimiser}-{stage}{name}"].losses == pytest.approx(part, rel=1e-4), name
        assert alone[f"{optimiser}-{stage}"].norms == pytest.approx(whole.norms[:4], rel=1e-3)
        same(alone[f"{optimiser}-{stage} begun"].state, train(replace(plain, steps=0)).state)

    @pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
    def test_its_own_state_goes_on(self, alone: dict[str, Outcome], stage: int, optimiser: str) -> None:
        first, again = alone[f"{optimiser}-{stage}"], alone[f"{optimiser}-{stage} again"]
        plain = Run(engine=TORCH, optim=SGD if optimiser == "sgd" else ADAMW, batch_norm=True, noise=0.1)
        assert again.losses == pytest.approx(train(replace(plain, steps=8)).losses[4:], rel=1e-4)
        assert first.state is not None and again.state is not None
        assert (first.state.numbers, again.state.numbers) == ({"steps": 4}, {"steps": 8})

    @pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
    def test_the_plain_engine_goes_on_from_it(
        self, alone: dict[str, Outcome], stage: int, optimiser: str, tmp_path: Path
    ) -> None:
        state = alone[f"{optimiser}-{stage}"].state
        assert state is not None
        write_state(state, str(tmp_path))
        plain = Run(engine=TORCH, optim=SGD if optimiser == "sgd" else ADAMW, batch_norm=True, noise=0.1)
        rest = train(replace(plain, first=4, load=str(tmp_path)))
        assert rest.losses == pytest.approx(train(replace(plain, steps=8)).losses[4:], rel=1e-4)

    def test_parts_clipping_and_precision(self, alone: dict[str, Outcome], stage: int) -> None:
        assert alone[f"parts-{stage}"].losses == pytest.approx(train(Run(engine=TORCH, optim=SGD)).losses, rel=1e-4)
        free = train(Run(engine=TORCH, optim=SGD.model_copy(update={"clip_norm": 0})))
        assert alone[f"unclipped-{stage}"].losses == pytest.approx(free.losses, rel=1e-4)
        rounded = train(Run(engine=EngineSettings(precision="bfloat16"), optim=SGD, steps=6))
        assert alone[f"bfloat16-{stage}"].losses == pytest.approx(rounded.losses, rel=1e-2)

    def test_recomputed_activations(self, alone: dict[str, Outcome], stage: int) -> None:
        kept = train(Run(engine=TORCH, optim=SGD, batch_norm=True, noise=0.1))
        assert alone[f"recomputed-{stage}"].losses == pytest.approx(kept.losses, rel=1e-4)


# Two ranks -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("ranks")
    train(replace(CASES["adamw"], save=str(folder / "plain")))
    runs = {}
    for stage in STAGES:
        for case, run in CASES.items():
            if stage == 3 and "one rank" in case:
                continue  # ZeRO-3 needs the same modules on every rank
            runs[f"{case}-{stage}"] = replace(run, engine=zero(stage), save=str(folder / f"{case}-{stage}"))
        runs[f"continued-{stage}"] = replace(
            CASES["adamw"], engine=zero(stage), first=4, load=str(folder / "plain"), save=str(folder / f"on-{stage}")
        )
    return dict(zip(runs, train_on_ranks(list(runs.values()), 2, folder), strict=True))


@slow
@needs_compiler
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
class TestTwoRanks:
    @pytest.mark.parametrize("case", ["sgd", "adamw", "parts", "used by none", "used at first"])
    def test_equal_one_on_the_joined_batch(self, on_two_ranks: dict[str, Outcome], stage: int, case: str) -> None:
        single, joined = train(CASES[case]), on_two_ranks[f"{case}-{stage}"]
        assert joined.losses == pytest.approx(single.losses, rel=1e-4)
        assert joined.norms == pytest.approx(single.norms, rel=1e-3)
        same(joined.state, single.state, rtol=1e-2, atol=1e-4)

    def test_go_on_from_one_rank_and_give_back(
        self, on_two_ranks: dict[str, Outcome], stage: int, tmp_path: Path
    ) -> None:
        whole = train(replace(CASES["adamw"], steps=12))
        continued = on_two_ranks[f"continued-{stage}"]
        assert continued.losses == pytest.approx(whole.losses[4:8], rel=1e-4)
        assert continued.state is not None
        write_state(continued.state, str(tmp_path))
        rest = train(replace(CASES["adamw"], first=8, load=str(tmp_path)))
        assert rest.losses == pytest.approx(whole.losses[8:], rel=1e-4)


@slow
@needs_compiler
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", ["used by one rank", "parts, used by one rank"])
def test_a_part_that_only_one_rank_uses(on_two_ranks: dict[str, Outcome], case: str, tmp_path: Path) -> None:
    """As DDP has it, which `test_engine.py` compares with the mean by hand."""
    (plain,) = train_on_ranks([replace(CASES[case], save=str(tmp_path / "plain"))], 2, tmp_path)
    for stage in STAGES[:3]:
        assert on_two_ranks[f"{case}-{stage}"].losses == pytest.approx(plain.losses, rel=1e-4)
        same(on_two_ranks[f"{case}-{stage}"].state, plain.state, rtol=1e-3, atol=1e-5)


@slow
@needs_compiler
@pytest.mark.timeout(1800)
def test_zero_3_says_when_ranks_differ(tmp_path: Path) -> None:
    """Seen here once parameters this small stay whole on every rank; the first time, collecting them would hang."""
    pytest.importorskip("deepspeed")
    run = Run(engine=zero(3), optim=SGD, seldom_later=(1.0, 0.0))
    with pytest.raises(ProcessRaisedException, match=r"same parts of the network .*engine\.zero_stage = 2"):
        train_on_ranks([run], 2, tmp_path)


@slow
@needs_compiler
@pytest.mark.timeout(1800)
def test_two_ranks_hand_over_to_four(on_two_ranks: dict[str, Outcome], tmp_path: Path) -> None:
    state = on_two_ranks["adamw-2"].state
    assert state is not None
    write_state(state, str(tmp_path / "state"))
    runs = [replace(CASES["adamw"], engine=zero(stage), first=4, load=str(tmp_path / "state")) for stage in STAGES]
    expected = train(replace(CASES["adamw"], steps=8)).losses[4:]
    for outcome in train_on_ranks(runs, 4, tmp_path):
        assert outcome.losses == pytest.approx(expected, rel=1e-4)
