"""What the pages say can be done: their Python and commands are run, their links followed.

A command that needs a corpus, a training or minutes is parsed, down to every key of a recipe, and
not run.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import ROOT, Run
from recordings import spoken, write
from vqcodec_cli.main import command_line

from vqcodec.training.recipe import PriorRecipe, Recipe, packaged_recipes
from vqcodec.training.recipe_files import read_recipe, validated

PAGES = ["README.md", "samples/README.md", "benchmarks/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES.remove("docs/how-to-add.md")  # test_how_to_add.py does what it says
FENCED = re.compile(r"^```([^`\n]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:vqcodec|python|make|pip|torchrun) [^`]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)[^):]*\)")
# What a reader of the page has made by then, or lies where it was unpacked; and what takes minutes.
NOT_RUN = re.compile(
    r"(data|runs|corpus|labels|VCTK-Corpus-0.92)(/|$)|(hf|s3|ray)://|train$|serve$|studio$|--tune$"
)
# Pages whose Python reads what their commands make.
FIRST_COMMANDS = {"docs/datasets.md"}
OTHER_PROGRAMS = {"arecord", "aplay", "nc"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, language: str) -> list[str]:
    return [block for kind, block in FENCED.findall(text_of(page)) if kind == language]


def commands_of(page: str) -> list[str]:
    lines = "".join(blocks_of(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if blocks_of(page, language)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader types: recordings under the names that the pages use."""
    write(tmp_path / "in.wav", spoken("slt", 0.0, 1.0))
    write(tmp_path / "friend.flac", spoken("rms", 0.0, 3.5))
    for name, voice in (("anna", "slt"), ("bea", "rms")):
        for number in (1, 2):
            write(tmp_path / f"{name}{number}.wav", spoken(voice, number - 1, number + 1))
    write(tmp_path / "recordings" / "a.wav", spoken("rms", 0.2, 0.9))
    write(tmp_path / "recordings" / "deep" / "b.wav", spoken("slt", 0.2, 0.9))
    for trained in ("labels/1.lab", "runs/prior/prior.safetensors"):
        (tmp_path / trained).parent.mkdir(parents=True)
        (tmp_path / trained).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(words: list[str], *, is_mention: bool = False) -> None:
    """Check the arguments of vqcodec as the command line does, and the recipe of a training."""
    command: Any = typer.main.get_command(command_line())
    context = command.make_context("vqcodec", list(words))
    name, command, rest = command.resolve_command(context, list(words))
    if not rest and is_mention:
        return
    context = command.make_context(name, rest, parent=context)
    if name == "train":
        recipe = context.params["recipe"]
        tree = read_recipe(recipe, list(context.params["overrides"] or []))
        validated(PriorRecipe if tree.get("stage") == "prior" else Recipe, recipe, tree)


@pytest.fixture
def check(folder: Path, run: Run, run_script: Run) -> Callable[..., None]:
    """Runs a command line, or, of one that cannot be run here, checks all that can be."""
    heard = b""

    def check_one(words: list[str], *, parse_only: bool) -> None:
        nonlocal heard
        match words:
            case ["vqcodec", *arguments]:
                parse(arguments, is_mention=parse_only)
                if not parse_only and not any(map(NOT_RUN.match, arguments)):
                    result = run(*arguments, stdin=heard)
                    assert result.status == 0, result.stderr
                    heard = result.data
            case ["torchrun", *_]:
                parse(words[words.index("vqcodec") + 1 :])
            case ["python", script, *arguments]:
                result = run_script(script, *arguments, "--help")
                assert result.status == 0, result.stderr
            case ["make", target]:
                assert re.search(f"^{target}:", text_of("Makefile"), re.MULTILINE)
            case ["pip", "install", what]:
                extras = tomllib.loads(text_of("pyproject.toml"))["project"]
                wanted = re.fullmatch(r"\.(?:\[(.+)\])?", what)
                assert wanted, what
                assert not wanted[1] or wanted[1] in extras["optional-dependencies"]
            case [program, *_]:
                assert program in OTHER_PROGRAMS
                heard = (folder / "in.wav").read_bytes() if program == "arecord" else heard

    def check(line: str, *, parse_only: bool = False) -> None:
        try:
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("|") if "|" in words else len(words)
                check_one(words[:end], parse_only=parse_only)
                words = words[end + 1 :]
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{line}\n{type(error).__name__}: {error}") from error

    return check


@pytest.mark.parametrize(
    "page", [page for page in pages_with("bash") if page not in FIRST_COMMANDS]
)
def test_commands_run(page: str, check: Callable[..., None]) -> None:
    for line in commands_of(page):
        check(line)


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_a_sentence_are_right(page: str, check: Callable[..., None]) -> None:
    for command in INLINE.findall(FENCED.sub("", text_of(page))):
        check(" ".join(command.split()), parse_only=True)


@pytest.mark.parametrize(
    "wrong",
    [
        "vqcodec encode in.wav out.codes --refined",
        "vqcodec decode no.codes out.wav",
        "vqcodec convert in.wav --speaker nobody",
        "vqcodec train vctk.yaml data.rot=data/vctk",
        "vqcodec train vctk_large.yaml",
        "arecord | vqcodec convert - -o -",
        "torchrun -m vqcodec train vctk.yaml steps=none",
        "python benchmarks/quality.py",
        "python benchmarks/speed.py --part encoding",
        "make everything",
        "pip install '.[gpu]'",
        "curl example.org",
    ],
)
def test_a_wrong_command_is_noticed(wrong: str, check: Callable[..., None]) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(page: str, folder: Path, check: Callable[..., None]) -> None:
    for line in commands_of(page) if page in FIRST_COMMANDS else []:
        check(line)
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks_of(page, "python"), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in LINK.findall(FENCED.sub("", text_of(page))):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def files_named() -> Iterator[str]:
    yield from re.findall(r"`([a-z_/]+(?:\.py|/))`", text_of("docs/how-it-works.md"))
    yield from re.findall(r'class="file"[^>]*>([^<]+)<', text_of("docs/architecture.svg"))


def test_files_are_where_the_ideas_are_said_to_be() -> None:
    named = set(files_named())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "vqcodec" / name).exists()] == []


def test_all_recipes_are_listed() -> None:
    assert set(re.findall(r"`(\w+\.yaml)`", text_of("docs/training.md"))) == set(packaged_recipes())
