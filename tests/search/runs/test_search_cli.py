"""qnas-search at a terminal: what a space holds, what a run may be asked, and what is refused."""

import io
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
import torch
from click.testing import CliRunner, Result

from qnas.errors import CheckpointError, UsageError
from qnas.network.architecture import Activation, Choice, Normalization
from qnas.search.run_cli import main as run
from qnas.search.runs.plan_checks import candidate_costs
from qnas.search.runs.run_folder import SearchPlan, option_of, read_begun, read_plan, write_begun
from qnas.search.runs.search_display import Facts, display, shown_cost
from qnas.search.runs.search_options import search_plan
from qnas.search.search_cli import COMMANDS, main
from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.space.search_space import SearchSpace, find_space, named_spaces
from qnas.search.space.space_options import parse_bits, parse_image
from qnas.search.space.space_table import magnitude
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.supernet_search import StepNews
from qnas.search.supernet.target import Target
from qnas.terminal import Terminal
from qnas.testing.small_searches import TINY
from qnas.torch.environment import environment

ESPCN_MACS = 37_945_344  # of 32x32 pixels: QuantNAS, table 1
BASIC = SearchPlan(find_space("basic"), SearchRecipe(("pictures",)))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def error(told: Result) -> str:
    """The one line of a refusal."""
    assert told.exit_code == 2, told.output
    assert told.stderr.startswith("error: ")
    assert told.stderr.count("\n") == 1
    return told.stderr


# The group -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["spaces", "--help"]])
def test_help_answers_without_torch(arguments: list[str]) -> None:
    program = f"""
import sys
from qnas.search.search_cli import main
try:
    main({arguments})
finally:
    print("torch loaded:", "torch" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("Usage: ")
    assert told.stdout.endswith("torch loaded: False\n")


def test_the_group_tells_all_its_commands_and_knows_no_other() -> None:
    shown = call("--help").output
    assert all(name in shown for name in COMMANDS)
    assert "has no command 'ran': did you mean run?" in call("ran").output


# Spaces ----------------------------------------------------------------------------------------------------


def spaces(tmp_path: Path, *arguments: object) -> list[dict[str, Any]]:
    told = call("spaces", *arguments, "--json", tmp_path / "spaces.json", "--force")
    assert told.exit_code == 0, told.output
    document = json.loads((tmp_path / "spaces.json").read_text())
    assert document["format"] == "qnas-spaces"
    found: list[dict[str, Any]] = document["spaces"]
    return found


def test_a_network_whose_bits_alone_are_searched_has_its_published_cost(tmp_path: Path) -> None:
    (espcn,) = spaces(tmp_path, "edmips-espcn", "--bits", "8")
    assert espcn["macs"] == [ESPCN_MACS, ESPCN_MACS]
    assert espcn["bitops"] == [64 * ESPCN_MACS, 64 * ESPCN_MACS]
    assert espcn["architectures"] == 1
    (espcn,) = spaces(tmp_path, "edmips-espcn")
    assert (espcn["bits"], espcn["architectures"]) == ([4, 8], 4**3)
    first = 5 * 5 * 3 * 64 * 32 * 32  # its image has 8 bits in any case
    assert espcn["bitops"] == [16 * (ESPCN_MACS - first) + 32 * first, 64 * ESPCN_MACS]


def test_a_space_of_ones_own_is_counted(tmp_path: Path) -> None:
    mine = {
        "network": "basic", "channels": 6, "blocks": 2, "scale": 2, "bits": [8],
        "identical_blocks": True, "operations": {"head.*": ["simple_1x1"], "*": ["simple_1x1", "simple_3x3"]},
    }  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    (found,) = spaces(tmp_path, tmp_path / "mine.json")
    assert (found["name"], found["architectures"]) == ("mine", 2**6)  # three of the blocks, upsample, tail
    pixels = 32 * 32
    # Head 3->6->6, six layers 6->6 in two blocks, upsample 6->12; tail 3->3->3 at twice the sides.
    assert found["macs"][0] == pixels * (18 + 36 + 6 * 36 + 72) + 4 * pixels * (9 + 9)
    assert found["macs"][1] == pixels * (18 + 36 + 9 * (6 * 36 + 72)) + 4 * pixels * 9 * (9 + 9)
    table = call("spaces", tmp_path / "mine.json").output
    assert " 64 " in table


def test_all_named_spaces_are_listed() -> None:
    shown = call("spaces").output
    assert all(f" {name} " in shown for name in named_spaces())
    assert "G" in shown


def test_an_existing_file_is_not_replaced_without_force(tmp_path: Path) -> None:
    (tmp_path / "spaces.json").write_text("mine")
    line = error(call("spaces", "edmips-espcn", "--json", tmp_path / "spaces.json"))
    assert "exists: pass --force to replace it" in line
    assert (tmp_path / "spaces.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(9_999_999, "9999999"), (10**7, "1.00e7"), (4_586_471_424, "4.59e9"), (9_999 * 10**9, "1.00e13"),
     (216 * 10**700, "2.16e702")],
    ids=["written", "8 digits", "10 digits", "rounded up", "beyond floats"],
)  # fmt: skip
def test_large_counts_have_three_digits(count: int, shown: str) -> None:
    assert magnitude(count) == shown


# Options ---------------------------------------------------------------------------------------------------


def test_every_field_of_a_recipe_has_its_option_with_its_default() -> None:
    options = {parameter.name: parameter for parameter in run.params}
    given = run.make_context("run", ["-o", "x"]).params
    defaults = {field.name: field.default for field in fields(SearchRecipe)}
    computed = {"data", "entropy", "merged"}  # entropy hangs on the bits, merged on --mixing
    for name in set(defaults) - computed:
        assert options[name].opts == [option_of(name)]
        assert given[name] == defaults[name]
    assert {"data", "entropy", "mixing"} <= set(options)
    plan = search_plan({"space": "basic", "data": (Path("pictures"),), "mixing": "exact"})
    assert plan == BASIC


def test_options_offer_what_the_recipe_and_the_network_know() -> None:
    hints = get_type_hints(SearchRecipe)
    offered = {p.name: list(p.type.choices) for p in run.params if isinstance(p.type, click.Choice)}
    for name in ("cost", "mixer", "selector", "optimizer"):
        assert offered.pop(name) == list(get_args(hints[name]))
    assert offered.pop("normalization") == list(get_args(Normalization))
    assert offered.pop("activation") == list(get_args(Activation))
    assert offered == {"mixing": ["exact", "merged"]}


def test_options_become_a_plan() -> None:
    options = {"space": "basic", "bits": "8,2", "channels": 12, "blocks": 1, "normalization": "none"}
    options |= {"data": (Path("a"), Path("b")), "mixing": "merged", "image": "180x320", "learning_rate": 0.5}
    plan = search_plan(options)
    space = plan.space
    assert (space.name, space.bits, space.channels, space.blocks) == ("basic", (2, 8), 12, 1)
    assert (space.normalization, plan.image) == ("none", (180, 320))
    recipe = SearchRecipe(("a", "b"), merged=True, learning_rate=0.5)
    assert plan.recipe == recipe


def test_the_entropy_has_the_papers_weight_for_full_precision_and_for_quantized_searches() -> None:
    weights = [search_plan({"space": "basic", "bits": bits}).recipe.entropy for bits in ("32", "4,32")]
    assert weights == [1e-3, 1e-4]
    assert search_plan({"space": "basic", "bits": "32", "entropy": 0.5}).recipe.entropy == 0.5


def test_operations_of_an_architecture_stay_and_its_bits_are_searched(tmp_path: Path) -> None:
    space = replace(find_space("basic"), channels=12, blocks=1)
    found = space.architecture({name: some_choice(space, name) for name in space.variables})
    (tmp_path / "arch.json").write_text(found.to_json())
    options = {"space": "basic", "channels": 12, "blocks": 1, "operations": str(tmp_path / "arch.json")}
    plan = search_plan(options)
    assert plan.space.slots == {slot: (choice.op,) for slot, choice in found.layers.items()}
    assert plan.space.size == 2 ** len(plan.space.variables)


def some_choice(space: SearchSpace, name: str) -> Choice:
    return Choice(space.candidates(name)[len(name) % 5], 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no search space: pass --space basic"),
        (["--space", "basics"], "no space 'basics': name a .json or .toml file or one of basic, "),
        (["--space", "basic"], "no training images: pass --data FOLDER"),
        ([*TINY, "--bits", "4;8"], "--bits '4;8' is no list of bit widths: write them as 4,8"),
        ([*TINY, "--bits", "4,5"], "bits[1] is 5, not one of 2, 3, 4, 8, 32"),
        ([*TINY, "--channels", "13"], "13"),
        ([*TINY, "--image", "32"], "--image '32' is no size: write HEIGHTxWIDTH in pixels"),
        ([*TINY, "--data", "nowhere"], "nowhere is not a folder: name a folder of images"),
        ([*TINY, "--data", ".", "--warm-up", "3"], "--warm-up 3 of --epochs 3 leaves no epoch"),
        ([*TINY, "--data", ".", "--cost", "latency"], "--cost latency and --latency-table FILE need"),
        ([*TINY, "--data", ".", "--latency-table", "x"], "need each other: pass both or neither"),
        ([*TINY, "--data", ".", "--space", "rfdn", "--patch", "8"], "--patch 8 is too small for the pooling"),
        ([*TINY, "--data", ".", "--space", "rfdn", "--image", "9x99"], "--image 9x99 is too small for"),
        ([*TINY, "--operations", "espcn-w8"], "the operations of espcn with 1 blocks do not fit basic"),
        ([*TINY, "--resume", "--force"], "--resume continues a run and --force discards it"),
        ([*TINY, "--lr", "0"], "0.0 is not in the range 0<x"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_in_one_line_and_nothing_is_written(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in error(call("run", "-o", tmp_path / "x", *arguments))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["", "4,", "4.0", "4x8"])
def test_no_list_of_bits(text: str) -> None:
    with pytest.raises(UsageError, match="is no list of bit widths"):
        parse_bits(text)


@pytest.mark.parametrize("text", ["", "32", "0x32", "32x", "-1x32", "32x32x3", "123456x1"])
def test_no_size_of_an_image(text: str) -> None:
    with pytest.raises(UsageError, match="is no size: write HEIGHTxWIDTH"):
        parse_image(text)


# Latency ---------------------------------------------------------------------------------------------------


def test_a_table_of_latencies_takes_the_place_of_bitops(tmp_path: Path) -> None:
    row = {"op": "simple_3x3", "in_channels": 6, "out_channels": 6, "bits": 8, "height": 32, "width": 32}
    shapes = [(3, 6, 1), (6, 6, 1), (6, 12, 1), (3, 3, 2)]
    rows = [{**row, "in_channels": i, "out_channels": o, "scale": s, "ms": 0.5 * o} for i, o, s in shapes]
    for each in rows:
        each["height"] = each["width"] = 32 * int(each["scale"])
    table = {"format": "qnas-latency-model", "version": 1, "operations": rows}
    (tmp_path / "table.json").write_text(json.dumps(table))
    mine = {"network": "basic", "channels": 6, "blocks": 1, "scale": 2, "bits": [8],
            "operations": {"*": ["simple_3x3"]}}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    options = {
        "space": str(tmp_path / "mine.json"),
        "cost": "latency",
        "latency_table": tmp_path / "table.json",
    }
    costs = candidate_costs(search_plan({**options, "data": (Path(),)}))
    assert costs.smallest == 0.5 * (6 + 6 + 3 * 6 + 12 + 3 + 3)


# Folders that hold a search --------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder of a search as far as the command can tell."""
    plan = search_plan({"space": "basic", "data": (tmp_path,), "channels": 12, "bits": "4,8", "epochs": 7})
    write_begun(tmp_path, plan, environment(torch.device("cpu"), 1), {})
    (tmp_path / "state.pt").write_bytes(b"not looked at")
    (tmp_path / "picture.png").touch()
    return tmp_path


def test_a_plan_is_read_back(begun: Path) -> None:
    plan = read_plan(begun)
    assert plan == search_plan(
        {"space": "basic", "data": (begun,), "channels": 12, "bits": "4,8", "epochs": 7}
    )
    assert not list(plan.differences(read_plan(begun)))


def test_a_search_is_neither_replaced_nor_continued_by_accident(begun: Path) -> None:
    line = error(call("run", *TINY, "--data", begun, "-o", begun))
    assert f"{begun} holds a search (state.pt): continue it with --resume, or discard it with --force" in line
    assert (begun / "state.pt").read_bytes() == b"not looked at"


@pytest.mark.parametrize(
    ("option", "value", "then"),
    [
        ("--space", "rfdn", "basic"), ("--bits", "2,8", "4,8"), ("--channels", "24", "12"),
        ("--blocks", "2", "3"),
        ("--normalization", "none", "adq"), ("--data", "elsewhere", "{begun}"),
        ("--penalty", "0.5", "0.0001"),
        ("--cost", "macs", "bitops"), ("--mixer", "shared", "san"), ("--mixing", "merged", "exact"),
        ("--selector", "gumbel", "softmax"), ("--epochs", "8", "7"), ("--epoch-steps", "8", "1000"),
        ("--warm-up", "1", "5"), ("--batch", "2", "16"), ("--patch", "16", "32"),
        ("--optimizer", "adam", "sgd"),
        ("--lr", "0.5", "0.001"), ("--alpha-lr", "0.5", "the default"), ("--entropy", "0.5", "0.0001"),
        ("--seed", "1", "0"), ("--cache-mib", "8", "1024"), ("--image", "64x64", "32x32"),
        ("--clip", "2", "5"),
    ],
)  # fmt: skip
def test_a_search_is_not_continued_with_another_option(
    begun: Path, option: str, value: str, then: str
) -> None:
    line = error(call("run", "-o", begun, "--resume", option, value))
    then = then.format(begun=begun)
    assert f"{begun} was begun with {option} {then}, not {value}: repeat the options of that run" in line


def test_a_search_is_continued_with_the_options_it_was_begun_with(begun: Path) -> None:
    options = ["--space", "basic", "--channels", "12", "--bits", "8,4", "--data", begun, "--epochs", "7"]
    for given in (options, []):
        line = error(call("run", "-o", begun, "--resume", *given))
        assert f"{begun / 'state.pt'} is truncated or no PyTorch checkpoint" in line  # so it was looked at


def test_what_holds_no_search_cannot_be_continued(tmp_path: Path) -> None:
    line = error(call("run", "-o", tmp_path / "x", "--resume"))
    assert f"{tmp_path / 'x'} holds no search (no search.json): leave --resume out to begin one" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "other"), ("version", 2), ("space", {}), ("recipe", {}), ("image", [1]), ("image", "32x32"),
     ("space_name", None), ("recipe", None)],
)  # fmt: skip
def test_a_damaged_plan_is_refused(begun: Path, key: str, value: object) -> None:
    document = json.loads((begun / "search.json").read_text())
    if value is None:
        del document[key]
    else:
        document[key] = value
    (begun / "search.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"search\.json.*: begin again with --force"):
        read_plan(begun)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", "many"), ("epochs", 1.5), ("cost", "money"), ("data", [3]), ("temperatures", [1]),
     ("other", 1), ("temperatures", ["a", "b"]), ("penalty", None)],
)  # fmt: skip
def test_a_plan_with_a_wrong_field_is_refused(begun: Path, field: str, value: object) -> None:
    document = json.loads((begun / "search.json").read_text())
    del document["digest"]
    document["recipe"][field] = value
    (begun / "search.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=rf"search\.json, recipe: {field}.* is "):
        read_plan(begun)


def test_a_plan_of_an_earlier_version_says_no_threads_and_no_images(begun: Path) -> None:
    document = json.loads((begun / "search.json").read_text())
    for key in ("digest", "environment", "inputs"):
        del document[key]
    (begun / "search.json").write_text(json.dumps(document))
    found = read_begun(begun)
    assert (found.environment, found.inputs) == (None, {})


def test_a_plan_that_is_no_json_is_refused(begun: Path) -> None:
    (begun / "search.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="begin again with --force"):
        read_plan(begun)


# The display -----------------------------------------------------------------------------------------------

NEWS = StepNews(
    epoch=5, step=120, loss=12.5, alpha_loss=13.5, expected_cost=2.5e9, best_cost=1.25e9, entropy=20.0,
    entropy_weight=5e-5, images_per_second=104.26, seconds_left=3725.4, penalty=0.01,
)  # fmt: skip
COSTS = CandidateCosts({"x": {("simple_3x3", 4): 1e9, ("simple_3x3", 8): 3e9}}, 0.5e9)


def test_the_parts_of_the_loss_are_told_in_grey_levels() -> None:
    told = Facts(SearchRecipe((), penalty=0.01), COSTS).of(NEWS)
    assert told == {
        "epoch": "6/20",
        "loss": "12.500",
        "alphas": "13.500 + 2.56 cost + 0.256 entropy",  # 0.01 * 2/2 and 5e-5 * 20, 256 grey levels to a unit
        "entropy": "20.00 nats x 5e-05",
        "expected": "2.5 GBitOps",
        "best": "1.25 GBitOps",
        "speed": "104.3 images/s",
        "left": "1:02:05",
    }
    told = Facts(SearchRecipe((), target="1G"), COSTS, Target(1e9, COSTS)).of(NEWS)
    assert (told["penalty"], told["target"]) == ("0.01", "25.00 % above the target")
    warm = replace(NEWS, alpha_loss=None)
    facts = Facts(SearchRecipe(()), COSTS)
    assert facts.of(warm)["alphas"] == "- (from epoch 6 on)"
    assert facts.of(NEWS)["alphas"] == facts.of(warm)["alphas"]  # between two steps of theirs


def test_costs_are_told_in_their_unit() -> None:
    assert shown_cost(2.4286e9, "bitops") == "2.429 GBitOps"
    assert shown_cost(37_945_344, "macs") == "0.03795 GMACs"
    assert shown_cost(1.5, "latency") == "1.5 ms in searched layers"


def test_a_terminal_shows_a_live_table() -> None:
    console = Terminal(force_terminal=True, width=80, record=True, file=io.StringIO())
    with display(console, SearchRecipe(()), COSTS) as show:
        show(NEWS)
    shown = console.export_text()
    assert "step      120/20000" in shown
    assert "1.25 GBitOps" in shown


def test_elsewhere_a_line_is_told_every_half_minute_and_at_the_end() -> None:
    clock = iter([0.0, 29.0, 31.0, 60.0, 60.5])
    console = Terminal(force_terminal=False, width=80, record=True, file=io.StringIO())
    with display(console, SearchRecipe(()), COSTS, clock=lambda: next(clock)) as show:
        show(NEWS)
        show(replace(NEWS, step=121))
        show(replace(NEWS, step=122))
        show(replace(NEWS, step=20_000))
    steps = [line.split()[1] for line in console.export_text().splitlines()]
    assert steps == ["121/20000", "20000/20000"]
