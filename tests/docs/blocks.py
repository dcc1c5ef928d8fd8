"""Code blocks of Markdown pages, and a process that runs them: everything is imported once, and forked for each."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.obslib.processes import DEADLINE_SECONDS, ROOT, environment

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text()
    return [
        Block(
            page=str(page.relative_to(ROOT)),
            line=text.count("\n", 0, match.start()) + 2,
            language=match["language"].strip(),
            text="".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True)),
        )
        for match in _FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def programs() -> list[Block]:
    """Return the blocks that are Python, or become Python when a diff is applied."""
    found = [block for block in BLOCKS if block.language == "python"]
    for block in BLOCKS:
        if block.language == "diff":
            lines = [line[1:] for line in block.text.splitlines(keepends=True) if line[0] in "+ \n"]
            found.append(Block(block.page, block.line, "python", "".join(line or "\n" for line in lines)))
    return found


def run_all(blocks: list[Block]) -> dict[str, str]:
    """Run each block in a process of its own; return what went wrong, by block, or nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.blocks"],
        input=json.dumps([asdict(block) for block in blocks]),
        cwd=ROOT,
        # No page is about instrumented libraries, and looking for them takes half a second a block.
        env=environment(PYTHONWARNINGS="ignore", OBSLIB_INSTRUMENTATIONS=","),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failures: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return failures


def _run_in_child(block: Block) -> str:
    """Return what a block printed if it failed; nothing if it ran."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.chdir(directory)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                status = _run(block)
            except BaseException:  # noqa: BLE001 -- a block may end by SystemExit
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return f"status {ended}\n{output.read()}" if ended else ""


def _run(block: Block) -> int:
    if re.search(r"^def test_", block.text, re.MULTILINE):
        import pytest

        Path("test_block.py").write_text(block.text)
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", ".", "test_block.py"]
        return int(pytest.main(options))
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    exec(compile(block.text, str(block), "exec"), vars(module))
    return 0


def main() -> None:
    """Import what blocks begin with, then run them; everything that forks is single-threaded until here."""
    import fastapi.testclient  # noqa: F401
    import opentelemetry.sdk.trace.export.in_memory_span_exporter  # noqa: F401
    import pytest  # noqa: F401

    import obslib._observability  # noqa: F401

    blocks = [Block(**values) for values in json.load(sys.stdin)]
    failures = {str(block): said for block in blocks if (said := _run_in_child(block))}
    print(json.dumps(failures))


if __name__ == "__main__":
    main()
