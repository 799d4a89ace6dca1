"""Run every Python snippet of the Markdown files that pytest collects.

A ```` ```python ```` block is a test. One without a `__main__` guard runs in a namespace that its
file's blocks share, top to bottom, in an empty directory. One with a guard is a whole program: it
runs as a script in a process of its own, since here its `__name__` would be another one and the
guarded lines would be skipped in silence.

A ```` ```text ```` block is what the Python block before it prints; no other fenced block stands
between the two. `...` in it stands for any text; trailing blanks don't count.

There is no way to leave a Python block out. Other texts, such as a drawing, get a fence with no
language.
"""

import contextlib
import doctest
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator, pad
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

pytest_plugins = ["pytester"]

SCRIPT_TIMEOUT = 60.0  # seconds; below pytest's own limit, so that the message names the snippet

GUARD = re.compile(r"^if __name__ == (['\"])__main__\1:", re.MULTILINE)
PYTHON_LIKE = re.compile(r"\b(py|python|python3|pycon)\b", re.IGNORECASE)

any_fenced_block = FencedCodeBlockLexer(language=r"[^\n]*")
evaluate_in_namespace = PythonEvaluator()


def parse_snippets(document: Document) -> Iterator[Region]:
    """Yield the document's Python blocks, each with its output or None in its lexemes.

    Raises:
        ValueError: A block would look tested, but isn't: an output without its snippet, or Python
            under another name.
    """
    snippet: Region | None = None
    for block in sorted(any_fenced_block(document), key=lambda block: block.start):
        language = block.lexemes["language"].strip()
        where = f"{document.path}, {document.line_column(block.start)}"
        if language == "text":
            if snippet is None:
                raise ValueError(f"{where}: this output has no python block before it")
            snippet.lexemes["output"] = block.lexemes["source"]
            snippet = None
        elif language == "python":
            block.parsed = block.lexemes["source"]
            block.evaluator = check_snippet
            block.lexemes["output"] = None
            yield (snippet := block)
        elif PYTHON_LIKE.search(language):
            raise ValueError(f"{where}: write ```python, not ```{language}")
        else:
            snippet = None


def check_snippet(example: Example) -> str | None:
    """Run one snippet; say what is wrong with it, or let its own error through."""
    if GUARD.search(example.parsed):
        printed, failure = run_script(example)
        if failure:
            return f"{failure}\n{printed}"
    else:
        printed = run_in_namespace(example)
    expected = example.region.lexemes["output"]
    if expected is None:
        return None
    expected, printed = without_trailing_blanks(expected), without_trailing_blanks(printed)
    if doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS):
        return None
    return f"Expected output:\n{expected}\nActual output:\n{printed}"


def run_in_namespace(example: Example) -> str:
    """Run a snippet here; return what it printed."""
    printed = io.StringIO()
    example.namespace["__name__"] = "snippet"
    try:
        with contextlib.redirect_stdout(printed):
            evaluate_in_namespace(example)
    finally:
        print(printed.getvalue(), end="")
    return printed.getvalue()


def run_script(example: Example) -> tuple[str, str | None]:
    """Run a snippet as a program; return what it printed, and what went wrong.

    The output is read to its end, so a script that leaves a process behind fails, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "snippet.py")
        # Padded, so that a traceback names the line of the document.
        source = pad(example.parsed, example.line + example.parsed.line_offset)
        script.write_text(source, encoding="utf-8")
        try:
            ended = subprocess.run(
                [sys.executable, "-X", "utf8", script],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=SCRIPT_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "", f"The script or a child of it still ran after {SCRIPT_TIMEOUT:g} s."
    if ended.returncode:
        return ended.stdout, f"The script exited with {ended.returncode}.\n{ended.stderr}"
    return ended.stdout, None


def without_trailing_blanks(text: str) -> str:
    """Drop the blanks that end lines and the empty lines around the text."""
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


@pytest.fixture(scope="module")
def empty_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each Markdown file's snippets a working directory of their own."""
    with contextlib.chdir(tmp_path_factory.mktemp("snippets")):
        yield


snippets = Sybil(parsers=[parse_snippets], patterns=["*.md"], fixtures=["empty_directory"])
pytest_collect_file = snippets.pytest()
