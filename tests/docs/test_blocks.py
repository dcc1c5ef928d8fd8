"""Every code block in the documentation does what it says, as far as a machine can tell."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from obslib._cli import main
from tests.docs.blocks import BLOCKS, PAGES, Block, programs, run_all
from tests.obslib.processes import ROOT

#: `text` is output, or a picture made of characters; `promql` is checked with the rules, the rest below.
LANGUAGES = {"python", "diff", "shell", "json", "yaml", "text", "promql"}
#: Programs that readers have, or that the page has them install.
PROGRAMS = {
    "curl",
    "docker",
    "export",
    "granian",
    "gunicorn",
    "hypercorn",
    "kubectl",
    "make",
    "obslib",
    "openssl",
    "opentelemetry-instrument",
    "pip",
    "python",
    "uvicorn",
}


#: What the runner itself is held to.
CHECKS = [
    Block("x", 1, "python", "assert True\n"),
    Block("x", 2, "python", "import obslib\nobslib.Settings(engine='steam')\n"),
    Block("x", 3, "python", "raise SystemExit(3)\n"),
    Block("x", 4, "python", "def test_it() -> None:\n    assert False\n"),
    Block("x", 5, "python", "def test_it(obslib_capture) -> None:\n    assert obslib_capture\n"),
]


def in_language(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return run_all([*programs(), *CHECKS])


@pytest.mark.parametrize("block", programs(), ids=str)
def test_program_runs(block: Block, failures: dict[str, str]) -> None:
    """A Python block is a whole program, and so is what a diff leaves."""
    assert str(block) not in failures, failures[str(block)]


def test_runner_fails_what_fails(failures: dict[str, str]) -> None:
    """The runner tells programs and tests that fail from those that do not."""
    assert sorted(block for block in failures if block.startswith("x:")) == ["x:2", "x:3", "x:4"]
    assert "must be one of obslib, contrib" in failures["x:2"]


def test_every_block_says_what_it_is() -> None:
    """A block without a language that is checked would be checked by nobody; indented blocks have none at all."""
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    indented = []
    for page in PAGES:
        without_fences = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        if re.search(r"(?:\A|\n\n)    \S", without_fences):
            indented.append(page.name)
    assert indented == []


@pytest.mark.parametrize("block", in_language("shell"), ids=str)
def test_shell_block_could_run(block: Block) -> None:
    """It is valid shell; its programs are known ones, its make targets, options and packages exist."""
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert checked.stderr == ""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
            words.pop(0)
        if not words:
            continue
        program, *arguments = words
        assert Path(program).name in PROGRAMS, line
        if program == "make":
            assert {argument for argument in arguments if "=" not in argument} <= targets, line
        if program == "obslib" or arguments[:2] == ["-m", "obslib"]:
            with pytest.raises(SystemExit) as ended:
                main([*(arguments if program == "obslib" else arguments[2:]), "--help"])
            assert ended.value.code == 0, line
        if program.endswith("python") and arguments[:1] == ["-m"]:
            assert importlib.util.find_spec(arguments[1]) is not None, line


@pytest.mark.parametrize("block", in_language("json", "yaml"), ids=str)
def test_data_parses(block: Block) -> None:
    """JSON and YAML are such, and not empty."""
    parsed = [json.loads(block.text)] if block.language == "json" else list(yaml.safe_load_all(block.text))
    assert all(parsed)


def test_links_lead_somewhere() -> None:
    """Relative links are to files that exist."""
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []
