"""A sweep does all of its members, tells of those that fail, and a second call does what is missing."""

import csv
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qnas.errors import CheckpointError, UsageError
from qnas.network.architecture import find_architecture
from qnas.search.runs.result import write_json
from qnas.search.sweep import stages
from qnas.search.sweep.flags import plan_of_flags
from qnas.search.sweep.lines import check, random_architecture, search_line, train_line, uniform_architecture
from qnas.search.sweep.member import METHODS, Member, member_from
from qnas.search.sweep.members import members
from qnas.search.sweep.options import arguments
from qnas.search.sweep.plan import plan_from
from qnas.search.sweep.progress import news, status, table
from qnas.search.sweep.stages import Job, Outcome, run_member
from qnas.search.sweep_cli import main
from qnas.terminal import Terminal

SPACE = {
    "network": "basic", "channels": 6, "blocks": 1, "scale": 4, "normalization": "adq",
    "identical_blocks": True, "bits": [4, 8], "operations": {"*": ["simple_1x1", "simple_3x3"]},
}  # fmt: skip
BASE = {"search": {"data": ["DIV2K"]}, "train": {"validate": "Set14"}}


def named(**tables: object) -> dict[str, Member]:
    """The members of a sweep with these tables."""
    return members(plan_from({**BASE, **tables}, "sweep.toml"))


def refused(advice: str, **tables: object) -> None:
    with pytest.raises(UsageError, match=advice):
        named(**tables)


# Members ----------------------------------------------------------------------------------------------------


def test_the_product_of_the_grid_makes_the_members_and_names_spell_it() -> None:
    grid = {"penalty": [1e-4, 2.5e-3, 0], "seed": [0, 1], "bits": ["4,8", 4], "space": ["basic", "rfdn"]}
    found = named(grid=grid)
    assert len(found) == 3 * 2 * 2 * 2
    assert list(found)[:4] == ["basic-b4.8-p1e-4-s0", "basic-b4.8-p1e-4-s1", "basic-b4.8-p2.5e-3-s0",
                               "basic-b4.8-p2.5e-3-s1"]  # fmt: skip
    assert "rfdn-b4-p0-s1" in found
    member = found["basic-b4-p2.5e-3-s1"]
    assert (member.method, member.space, member.bits, member.penalty, member.seed) == (
        "search", "basic", (4,), 2.5e-3, 1,
    )  # fmt: skip


def test_what_is_not_given_is_one_search_of_the_basic_space_at_its_own_bits() -> None:
    assert list(named()) == ["basic-b4.8-p1e-4-s0"]


def test_every_method_takes_its_part_of_the_grid() -> None:
    sweep = {"methods": list(METHODS), "samples": 2, "max-bitops": "2.4G", "architectures": ["espcn", "rfdn"]}
    grid = {
        "seed": [0],
        "bits": ["4,8", "8"],
        "mixer": ["san", "shared"],
        "channels": [18],
        "train.lr": [1e-3],
    }
    found = list(named(sweep=sweep, grid=grid))
    for name in (
        "basic-b4.8-p1e-4-mixer.san-channels.18-train.lr.1e-3-s0",
        "full-precision-basic-p1e-4-mixer.shared-channels.18-train.lr.1e-3-s0",
        "two-fold-basic-b8-p1e-4-mixer.san-channels.18-train.lr.1e-3-s0",
        "random-basic-b4.8-2.4G-n1-channels.18-train.lr.1e-3-s0",
        "uniform-lsq-espcn-b4-train.lr.1e-3-s0",
        "uniform-hwgq-rfdn-b8-train.lr.1e-3-s0",
        "edmips-rfdn-b4.8-p1e-4-mixer.shared-train.lr.1e-3-s0",
    ):
        assert name in found
    kinds = [sum(name.startswith(f"{method}-") for name in found) for method in METHODS[1:]]
    assert kinds == [2, 4, 4, 4, 4, 8]  # full-precision, two-fold, random, uniform-lsq and -hwgq, edmips
    assert len(found) == 4 + sum(kinds)


def test_full_precision_has_no_hwgq() -> None:
    sweep = {"methods": ["uniform-lsq", "uniform-hwgq"]}
    assert list(named(sweep=sweep, grid={"bits": ["32"]})) == ["uniform-lsq-espcn-b32-s0"]


def test_options_of_the_search_table_are_single_values_of_the_grid() -> None:
    found = named(
        search={"data": "DIV2K", "space": "rfdn", "bits": [3, 2], "penalty": 0.01, "seed": 5, "epochs": 2}
    )
    assert list(found) == ["rfdn-b2.3-p0.01-s5"]
    assert found["rfdn-b2.3-p0.01-s5"].search == {"data": str(Path("DIV2K").absolute()), "epochs": 2}


def test_a_file_of_a_space_gives_its_name_and_is_found_from_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "my space.json"
    path.write_text(json.dumps(SPACE))
    found = named(grid={"space": [str(path)]})
    assert {name: member.space for name, member in found.items()} == {"my_space-b4.8-p1e-4-s0": str(path)}


def test_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "space.json").write_text(json.dumps(SPACE))
    paths = [str(tmp_path / folder / "space.json") for folder in ("a", "b")]
    refused("two members are named space-b4.8-p1e-4-s0: give their files other names", grid={"space": paths})


@pytest.mark.parametrize(
    ("tables", "advice"),
    [
        ({"searching": {}}, "sweep.toml: searching is unknown, not one of sweep, search, train, grid"),
        ({"sweep": 3}, "sweep.toml: sweep is 3, not an object"),
        ({"sweep": {"method": ["search"]}}, "sweep.toml: sweep.method is unknown, not one of methods,"),
        ({"sweep": {"methods": ["best"]}}, r"sweep.methods\[0\] is 'best', not one of edmips"),
        ({"sweep": {"methods": "random"}}, r"sweep.methods is 'random', not a list of 1 or more"),
        ({"sweep": {"methods": ["random"]}}, "random architectures need a cost: pass --max-bitops"),
        ({"sweep": {"max-bitops": "2,4"}}, "--max-bitops 2,4: write a number"),
        ({"sweep": {"samples": 0}}, r"sweep.samples is 0, not a whole number from 1"),
        ({"sweep": {"samples": True}}, "samples is True, not a whole number"),
        ({"sweep": {"train-warm-start": "yes"}}, "sweep.train-warm-start is 'yes', not true or false"),
        ({"sweep": {"image": "32"}}, "--image '32' is no size"),
        ({"sweep": {"methods": ["edmips"], "architectures": ["a.json"]}}, "edmips searches the bits of"),
        ({"grid": {"seed": []}}, "grid.seed is a list of 0, not a list of 1 or more"),
        ({"grid": {"seed": ["0"]}}, r"grid: seed\[0\] is '0', not a whole number from 0"),
        ({"grid": {"seed": [1, 1]}}, "seed names a value twice: name each once"),
        ({"grid": {"bits": [[4, 8], "8,4"]}}, "bits names a value twice"),
        ({"grid": {"penalty": [-1]}}, r"grid: penalty\[0\] is -1, not a number from 0"),
        ({"grid": {"penalty": [float("nan")]}}, r"grid: penalty\[0\] is not a number, not a number from 0"),
        ({"grid": {"space": [3]}}, r"grid: space\[0\] is 3, not a text"),
        ({"grid": {"epoch": [1]}}, r"\[search\]: qnas-search run has no option 'epoch': see qnas-search"),
        ({"grid": {"train.step": [1]}}, r"\[train\]: qnas-train has no option 'step': see qnas-train --help"),
        ({"search": {"data": "a", "output": "x"}}, r"\[search\]: output is set by the sweep itself: leave"),
        ({"train": {"bits": 8, "validate": "a"}}, r"\[train\]: bits is set by the sweep itself"),
        ({"search": {}}, "no training images: pass --data FOLDER"),
        ({"train": {}}, "nothing to measure quality on: pass --validate FOLDER of HR images"),
    ],
)  # fmt: skip
def test_a_plan_that_is_wrong_is_refused_with_its_place(tables: dict[str, object], advice: str) -> None:
    refused(advice, **tables)


def test_a_member_is_read_back_as_it_was_written() -> None:
    sweep = {"methods": ["search", "random"], "max-bitops": "2.4G", "min-bitops": "1G"}
    for name, member in named(sweep=sweep, grid={"temperatures": [[5, 0.1]]}).items():
        document = json.loads(json.dumps(member.to_document()))
        again = member_from(name, document, "sweep.json")
        assert again.to_document() == member.to_document()
        assert (again.bits, again.image, again.bitops) == (member.bits, member.image, member.bitops)


@pytest.mark.parametrize(
    ("name", "change", "advice"),
    [
        ("../../etc", {}, "name is '../../etc', not a text that matches"),
        ("..", {}, "name is '..', not a text that matches"),
        ("a", {"method": "rm"}, "method is 'rm', not one of edmips"),
        ("a", {"seed": "0"}, "seed is '0', not a whole number"),
        ("a", {"bits": 4}, "bits is 4, not a list"),
        ("a", {"train": None}, "train is None, not an object"),
    ],
)
def test_a_record_that_holds_no_member_is_refused(name: str, change: dict[str, object], advice: str) -> None:
    (member,) = named().values()
    with pytest.raises(CheckpointError, match=rf"sweep.json, member '.*': {advice}"):
        member_from(name, {**member.to_document(), **change}, "sweep.json")
    with pytest.raises(CheckpointError, match="method is missing"):
        member_from("a", {}, "sweep.json")


# Command lines ----------------------------------------------------------------------------------------------


def test_options_become_command_lines() -> None:
    options = {"data": ["a", "-b"], "lr": 1e-3, "epochs": 4, "temperatures": [5, 0.1], "mixer": "shared"}
    assert arguments("run", options) == [
        "--data=a", "--data=-b", "--lr=0.001", "--epochs=4", "--temperatures", "5", "0.1", "--mixer=shared",
    ]  # fmt: skip
    assert arguments("train", {"show": True, "force": False}) == ["--show"]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"lr": [1, 2]}, r"qnas-search run --lr takes 1 value\(s\), not 2"),
        ({"temperatures": 5}, r"--temperatures takes 2 value\(s\), not 1"),
        ({"lr": True}, "--lr takes texts or numbers, not 'True'"),
        ({"lr": {}}, "--lr takes texts or numbers"),
        ({"resume": "yes"}, "--resume is true or false, not 'yes'"),
    ],
)
def test_values_that_no_command_line_has_are_refused(options: dict[str, object], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        arguments("run", options)


def test_a_search_and_a_training_get_the_settings_of_their_member(tmp_path: Path) -> None:
    (member,) = named(
        sweep={"image": "48x64"}, grid={"mixer": ["shared"], "train.lr": [2e-3], "seed": [3]}
    ).values()
    here = Path.cwd()
    assert search_line(member, tmp_path, bits=(32,), operations="arch.json") == [
        f"--data={here / 'DIV2K'}", "--mixer=shared", "--space=basic", "--bits=32", "--penalty=0.0001",
        "--seed=3", "--image=48x64", f"--output={tmp_path}", "--operations=arch.json",
    ]  # fmt: skip
    assert train_line(member, tmp_path / "arch.json", tmp_path / "found.pt") == [
        f"{tmp_path / 'arch.json'}", f"--validate={here / 'Set14'}", f"--data={here / 'DIV2K'}", "--lr=0.002",
        "--seed=3", f"--output={tmp_path / 'found.pt'}",
    ]  # fmt: skip


def test_uniform_hwgq_has_the_steps_of_hwgq_but_for_its_warm_start() -> None:
    found = named(sweep={"methods": ["uniform-lsq", "uniform-hwgq"]}, grid={"bits": ["4"]},
                  train={"validate": "a", "levels": "lloyd"})  # fmt: skip
    lsq, hwgq = found.values()
    paths = Path("arch.json"), Path("found.pt")
    assert "--activation-steps=hwgq" in train_line(hwgq, *paths)
    assert "--levels=lloyd" in train_line(hwgq, *paths)
    assert not any("hwgq" in part or "lloyd" in part for part in train_line(hwgq, *paths, bits=32))
    assert not any("hwgq" in part for part in train_line(lsq, *paths))
    assert uniform_architecture(hwgq) == find_architecture("espcn-w4")


def test_a_random_member_is_one_of_a_row_that_others_continue() -> None:
    sweep = {"methods": ["random"], "max-bitops": "2.4G", "samples": 3}
    found = list(named(sweep=sweep, grid={"space": ["basic-small"], "blocks": [1]}).values())
    drawn = [random_architecture(member) for member in found]
    assert len({each.to_json() for each in drawn}) == 3
    assert {each.blocks for each in drawn} == {1}


# Where members stand ----------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (member,) = named().values()
    job = Job(member, tmp_path, 1)
    job.folder.mkdir(parents=True)
    job.log.parent.mkdir()
    return job


def test_the_state_of_a_member_is_read_from_its_files(job: Job) -> None:
    assert status(job, 0.0).state == "waiting"
    job.log.write_text("")
    assert status(job, time.time() + 10).state == "waiting"  # begun, but in an earlier call
    assert (status(job, 0.0).state, status(job, 0.0).detail) == ("searching", "")
    (job.folder / "full-precision").mkdir()
    (job.folder / "full-precision" / "log.jsonl").write_text('{"epoch": 1, "step": 40}\n')
    assert status(job, 0.0).detail == "full precision, epoch 2, step 40"
    (job.folder / "log.jsonl").write_text('{"epoch": 0, "step": 7}\n{"epoch": 0, "st')
    assert status(job, 0.0).detail == "epoch 1, step 7"
    result = {"space_name": "basic", "method": "search", "macs": 150_000_000, "bitops": 2_400_000_000}
    write_json(job.folder / "result.json", {"format": "qnas-search-result", "version": 1, **result})
    job.log.write_text("step 10/40  loss\nstep 20/40  loss")
    assert (status(job, 0.0).state, status(job, 0.0).detail) == ("training", "step 20/40")
    (job.folder / "failed.txt").write_text("the disk is full\n")
    assert (status(job, 0.0).state, status(job, 0.0).detail) == ("failed", "the disk is full")
    write_json(job.folder / "trained.json", {"bitops": 2_400_000_000, "psnr_y": 25.5})
    after = status(job, 0.0)
    before = {after.name: status(Job(job.member, job.sweep / "none", 1), 0.0)}
    assert news(before, [after]) == ["basic-b4.8-p1e-4-s0: trained, PSNR-Y 25.500 dB, 2.4G BitOps"]
    assert news({after.name: after}, [after]) == []
    text = io.StringIO()
    Terminal(width=100, file=text).print(table([after, *before.values()]))
    shown = [line.split() for line in text.getvalue().splitlines()]
    assert ["basic-b4.8-p1e-4-s0", "trained", "25.500", "2.4G"] in shown
    assert ["1", "waiting,", "1", "trained"] in shown


def test_a_member_that_another_process_works_on_is_left_to_it(job: Job) -> None:
    with job.log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = run_member(job)
    assert (outcome.state, (job.folder / "failed.txt").read_text()) == ("failed", outcome.text + "\n")
    assert outcome.text.startswith(
        "another process works on basic-b4.8-p1e-4-s0, of another sweep or left over"
    )


def test_a_member_of_a_sweep_that_is_to_stop_does_not_begin(job: Job) -> None:
    (job.sweep / stages.STOP).touch()
    assert run_member(job) == Outcome(job.member.name, "stopped")
    assert list(job.folder.iterdir()) == []


def test_a_two_fold_member_with_a_warm_start_has_four_stages_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = {"methods": ["two-fold"], "train-warm-start": True}
    (member,) = named(sweep=sweep, grid={"bits": ["4,8"], "target-bitops": ["60%"]}).values()
    job, lines = Job(member, tmp_path, 1), []

    def process(job: Job, command: str, line: list[str], output: object) -> None:
        path = Path(next(part for part in line if part.startswith("--output=")).removeprefix("--output="))
        begun = path / "search.json" if command == "run" else path.with_name(path.name + ".run")
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.touch()
        lines.append((path.relative_to(job.folder).as_posix(), set(line)))
        if "--resume" not in line:
            raise stages.Stopped
        (path / "result.json" if command == "run" else path).touch()

    monkeypatch.setattr(stages, "_process", process)
    for _ in range(5):
        try:
            if not (job.folder / "result.json").exists():
                stages._find(job, io.BytesIO())
            stages._train(job, find_architecture("basic-w4"), io.BytesIO())
        except stages.Stopped:
            continue
    assert [name for name, _ in lines] == [
        "full-precision", "full-precision", ".", ".", "warm.pt", "warm.pt", "found.pt", "found.pt",
    ]  # fmt: skip
    first, then, warm, last = (lines[index][1] for index in (1, 3, 5, 7))
    assert "--bits=32" in first
    assert not any(part.startswith(("--operations", "--target")) for part in first)
    assert "--target-bitops=60%" in then
    assert {"--bits=4,8", f"--operations={job.folder / 'full-precision' / 'arch.json'}"} <= then
    assert "--bits=32" in warm
    assert not any(part.startswith("--bits") for part in last)
    assert f"--warm-start={job.folder / 'warm.pt'}" in last


@pytest.mark.parametrize(
    ("printed", "code", "words"),
    [
        ("step 1\nerror: the loss became nan: use another --lr\nbye\n", 2, "the loss became nan: .* --lr"),
        ("Traceback\nValueError: no\n\n", 1, "ValueError: no"),
        ("", 3, "exit code 3 without a word"),
        ("step 1\n", -signal.SIGKILL, r"killed by SIGKILL: see .*s0.txt \(out of memory\?\)"),
        ("step 1\n", -signal.SIGSEGV, "killed by SIGSEGV: see .*s0.txt"),
    ],
)  # fmt: skip
def test_the_last_words_of_a_process_say_why_it_failed(job: Job, printed: str, code: int, words: str) -> None:
    job.log.write_text(f"error: of an earlier call\n{printed}")
    said = stages._last_words(job.log, len("error: of an earlier call\n"), code)
    assert re.fullmatch(words, said)


# Sweeps -----------------------------------------------------------------------------------------------------


@pytest.fixture
def options(photographs: Path, tmp_path: Path) -> list[str]:
    """Of a sweep of a tiny search and a tiny ESPCN; 10 seconds of work."""
    (tmp_path / "tiny.json").write_text(json.dumps(SPACE))
    return [
        "-o", str(tmp_path / "sweep"), "--space", str(tmp_path / "tiny.json"), "--bits", "4",
        "--data", str(photographs), "--validate", str(photographs), "--search-epochs", "2",
        "--epoch-steps", "2", "--search", "warm-up=1", "--search", "patch=8", "--search", "batch=2",
        "--train-steps", "2", "--train", "patch=8", "--train", "batch=2", "--threads", "1",
    ]  # fmt: skip


BOTH = ["--method", "search", "--method", "uniform-hwgq"]
SEARCHED, UNIFORM = "tiny-b4-p1e-4-s0", "uniform-hwgq-espcn-b4-s0"


def call(*options: str) -> Result:
    return CliRunner().invoke(main, options)


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "pareto.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_failed_member_is_told_and_the_rest_goes_on_and_resume_does_what_is_missing(
    options: list[str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "logs").mkdir(parents=True)
    with (sweep / "logs" / f"{UNIFORM}.txt").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = call(*options, *BOTH, "--workers", "2")
    assert result.exit_code == 1, result.output
    assert f"{SEARCHED}: trained, PSNR-Y" in result.stderr
    assert f"failed: {UNIFORM}: another process works on {UNIFORM}" in result.stderr
    assert "another process works" in rows(sweep)[UNIFORM]["failed"]
    assert rows(sweep)[SEARCHED]["on_front"] == "True"
    done = {name: (sweep / "members" / SEARCHED / name).read_bytes() for name in ("found.pt", "trained.json")}

    assert "holds a sweep: continue it with --resume, or name another folder" in call(*options).stderr
    changed = call(*options, *BOTH, "--resume", "--train", "lr=0.01")
    assert changed.exit_code == 2
    assert f"member {SEARCHED} was begun with lr null, not 0.01: repeat the settings" in changed.stderr

    result = call("-o", str(sweep), "--resume", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert done == {name: (sweep / "members" / SEARCHED / name).read_bytes() for name in done}
    for name, row in rows(sweep).items():
        trained = json.loads((sweep / "members" / name / "trained.json").read_text())
        assert float(row["psnr_y"]) == trained["psnr_y"]
        assert (int(row["bitops"]), int(row["macs"])) == (trained["bitops"], trained["macs"])
        assert trained["validation"] == "photographs"
        assert f"{trained['psnr_y']:.3f} dB" in result.stdout
    assert rows(sweep)[UNIFORM]["failed"] == ""
    assert find_architecture(str(sweep / "members" / UNIFORM / "arch.json")) == find_architecture("espcn-w4")
    assert "<html" in (sweep / "report.html").read_text()


def test_ctrl_c_lets_members_save_and_resume_ends_them(options: list[str], tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    long = [*options, "--epoch-steps", "60"]
    member = sweep / "members" / SEARCHED

    def interrupt() -> None:
        while not (member / "log.jsonl").exists() or not (member / "log.jsonl").stat().st_size:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result = call(*long)
    assert result.exit_code == 130, result.output
    assert "stopping: members save their states" in result.stderr
    assert f"stopped; continue with: qnas-search sweep -o {sweep} --resume" in result.stderr
    assert (member / "state.pt").exists()
    assert not (member / "trained.json").exists()
    assert not (sweep / stages.STOP).exists()
    result = call("-o", str(sweep), "--resume", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert (member / "trained.json").exists()


def test_without_a_sweep_there_is_nothing_to_resume(tmp_path: Path) -> None:
    result = call("-o", str(tmp_path / "none"), "--resume")
    assert result.exit_code == 2
    assert "holds no sweep (no sweep.json): leave --resume out to begin one" in result.stderr
    (tmp_path / "sweep.json").write_text("[]")
    assert "is no record of a sweep: begin in another folder" in call("-o", str(tmp_path), "--resume").stderr


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        (["--search", "lr=-1"], "Invalid value for '--lr': -1.0 is not in the range "),
        (["--train", "loss=l3"], "Invalid value for '--loss': 'l3' is not one of 'l1', 'mse': see qnas"),
        (["--search", "epochs=1"], "--warm-up 1 of --epochs 1 leaves no epoch for the alphas"),
        (["--search", "lr"], "Invalid value for '--search': 'lr' is not KEY=VALUE"),
        (["--data", "nowhere"], "nowhere is not a folder: name a folder of images"),
        (["--validate", "nowhere"], "nowhere is not a folder: name a folder of images"),
        (["--space", "none"], "no space 'none': name a .json or .toml file or one of"),
        (["--bits", "5"], "bits[0] is 5, not one of 2, 3, 4, 8, 32"),
        (["--method", "uniform-lsq", "--architecture", "none"], "no architecture 'none': name a JSON file"),
        (["--method", "random", "--max-bitops", "1k"], "has no architecture with 8e-07G to 1e-06G BitOps"),
        (["--config", "none.toml"], "none.toml cannot be read (No such file or directory): check the path"),
    ],
)  # fmt: skip
def test_what_can_only_fail_is_refused_before_anything_runs(
    options: list[str], tmp_path: Path, more: list[str], advice: str
) -> None:
    result = call(*options, *more)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert advice in line
    assert not (tmp_path / "sweep").exists()


def test_a_toml_file_says_the_same_as_options(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(
        '[sweep]\nmethods = ["search", "random"]\nsamples = 2\nmax-bitops = "2.4G"\n'
        '[search]\ndata = ["DIV2K"]\nepochs = 3\n[train]\nvalidate = "Set14"\nsteps = 9\nlr = 0.01\n'
        '[grid]\nbits = ["4,8"]\nseed = [0, 1]\npenalty = [1e-4]\n'
    )
    nothing = dict.fromkeys(("space", "architectures", "search"), ())
    flags = {
        **nothing, "methods": ("search", "random"), "samples": 2, "max_bitops": "2.4G",
        "data": (Path("DIV2K"),),
        "search_epochs": 3, "validate": Path("Set14"), "train_steps": 9, "train": (("lr", "0.01"),),
        "bits": ("4,8",), "seeds": 2, "penalty": (1e-4,), "resume": False,
    }  # fmt: skip
    from_flags, from_file = (
        plan_of_flags(flags, False),
        plan_of_flags({"config": tmp_path / "sweep.toml"}, False),
    )
    assert from_flags is not None
    assert from_file is not None
    assert {name: each.to_document() for name, each in members(from_flags).items()} == {
        name: each.to_document() for name, each in members(from_file).items()
    }
    assert plan_of_flags({**nothing, "train_warm_start": False}, True) is None
    more = plan_of_flags({"config": tmp_path / "sweep.toml", "seeds": 3}, True)
    assert more is not None
    assert more.grid["seed"] == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "advice"), [("[a", "is not TOML"), ("sweep = 3", "sweep is 3, not an object")]
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str, advice: str) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(UsageError, match=advice):
        plan_of_flags({"config": tmp_path / "sweep.toml", "samples": 2}, False)


def test_checks_pass_what_can_run(photographs: Path) -> None:
    sweep = {"methods": list(METHODS), "max-bitops": "3G", "samples": 1}
    images = {"data": str(photographs)}
    for member in named(sweep=sweep, search=images, train={"validate": str(photographs)}).values():
        check(member)


# Ray --------------------------------------------------------------------------------------------------------


def test_without_ray_its_extra_is_named(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = call(*options, "--ray", "local")
    assert result.exit_code == 2
    assert '--ray needs Ray, which is not installed: pip install "qnas[search,ray]"' in result.stderr


def test_a_ray_instance_does_the_members(options: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "qnas[ray]"')
    program = "from qnas.search.sweep_cli import main; main()"
    command = [sys.executable, "-c", program, *options, *BOTH, "--ray", "local", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "sweep")
    assert set(found) == {SEARCHED, UNIFORM}
    assert all(float(row["psnr_y"]) > 5 for row in found.values())
