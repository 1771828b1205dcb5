"""All commands: one name for one thing, examples, old names, and the page of all options."""

import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import run, run_in_process
from typer.testing import CliRunner

from edgel3_tflm.cli.command import EXAMPLES, RENAMED
from edgel3_tflm.cli.commands import app
from edgel3_tflm.runtime.deployment import Deployment

SCRIPT = Path(__file__).parents[2] / "docs" / "make_commands.py"


@pytest.fixture(scope="module")
def page() -> Any:
    spec = importlib.util.spec_from_file_location("make_commands", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(page: Any) -> list[tuple[str, Any]]:
    return [
        (name, param)
        for name, command in page.list_commands().items()
        for param in command.params
        if not getattr(param, "hidden", False)
    ]


def test_the_page_of_all_options_is_that_of_the_code(page: Any) -> None:
    assert page.PAGE.read_text() == page.make_page(), "run: python docs/make_commands.py"


def test_every_option_has_a_meaning_and_shows_what_it_takes(page: Any) -> None:
    for name, param in options(page):
        assert param.help, (name, param.opts)
        is_flag = getattr(param, "is_flag", False)
        assert (param.metavar == "") == is_flag, (name, param.opts)


def test_the_same_thing_has_the_same_name_in_all_commands(page: Any) -> None:
    letters: dict[str, set[str]] = defaultdict(set)
    values: dict[str, set[str]] = defaultdict(set)
    for _, param in options(page):
        if param.param_type_name == "option":
            values[param.opts[0]].add(param.metavar)
            for letter in (each for each in param.opts if not each.startswith("--")):
                letters[letter].add(param.opts[0])
    assert {letter: names for letter, names in letters.items() if len(names) > 1} == {}
    # Each command accepts what makes sense for it. embed's manifest needs no labels, evaluate
    # writes one file, and a board has runtimes of its own.
    assert {name for name, forms in values.items() if len(forms) > 1} == {
        "--embedding-layer",
        "--fail-over",
        "--filters",
        "--manifest",
        "--output",
        "--quantization",
        "--runtime",
        "--weights",
    }
    deployments = {p.metavar for _, p in options(page) if p.name == "directory"}
    assert deployments == {"DEPLOYMENT"}


def test_every_command_has_two_examples_that_parse(page: Any) -> None:
    commands = page.list_commands()
    assert set(EXAMPLES) == set(commands)
    for name, lines in EXAMPLES.items():
        for line in lines:
            assert line.startswith(name)
            arguments = line.removeprefix(name).split()
            commands[name].make_context(name, arguments)  # raises if an option is unknown
        shown = CliRunner().invoke(app, [*name.split(), "-h"]).stdout
        assert f"edgel3-tflm {lines[0]}" in " ".join(shown.split())
        assert "<bool>" not in shown


@pytest.mark.parametrize("group", ["", "device", "report"])
def test_a_group_shows_flags_without_a_type(group: str) -> None:
    shown = CliRunner().invoke(app, [*group.split(), "-h"]).stdout
    assert "--help" in shown
    assert "<bool>" not in shown


def test_old_names_are_options_that_no_command_has_now(page: Any) -> None:
    for name, renamed in RENAMED.items():
        present = {
            each
            for param in page.list_commands()[name].params
            for each in (*param.opts, *param.secondary_opts)
        }
        for old, new in renamed.items():
            assert old not in present
            assert new in present


@pytest.mark.parametrize(
    ("arguments", "notice", "error"),
    [
        (
            ["embed", "--manifest", "x", "--out", "d", "--engine", "spark"],
            "notice: --engine is now --scheduler; the old form still works",
            "unknown scheduler 'spark'",
        ),
        (
            ["embed", "--manifest", "none", "--out=d", "--engine", "dask", "--scheduler", "a:1"],
            "notice: --out is now --output; the old form still works",
            "none",
        ),
        (
            ["convert", "--model-type", "sea", "--emb-dim=100"],
            "notice: --emb-dim is now --embedding-size; the old form still works",
            "unknown embedding size 100",
        ),
    ],
)
def test_an_old_name_still_works_with_a_notice(
    arguments: list[str], notice: str, error: str
) -> None:
    status, shown = run_in_process(*arguments)
    assert status == 1
    assert notice in shown
    assert error in shown


def test_the_old_order_of_probe_and_train_head_still_works(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "clips.tsv").write_text("file\tlabel\tfold\nnone.wav\ta\t1\n")
    for command in ("probe", "train-head"):
        old = run_in_process(command, tmp_path / "clips.tsv", "--model", tiny_int8.directory)
        new = run_in_process(command, tiny_int8.directory, "--manifest", tmp_path / "clips.tsv")
        assert old[1].startswith("notice: MANIFEST --model DEPLOYMENT is now DEPLOYMENT --manifest")
        assert old[1].partition("\n")[2] == new[1]
        assert new[0] == 1
        assert "expected --manifest" in run_in_process(command, tiny_int8.directory)[1]


def test_the_shell_completes_commands_options_and_choices() -> None:
    def complete(line: str) -> str:
        return run(
            _EDGEL3_TFLM_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(line.split(" ")) - 1),
        ).stdout

    assert complete("edgel3-tflm comp").split() == ["compare"]
    assert complete("edgel3-tflm convert --emb").split() == [
        "--embedding-layer",
        "--embedding-size",
    ]
    assert complete("edgel3-tflm embed --resampler k").split() == ["kaiser_best"]
