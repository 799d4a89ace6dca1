"""The documents' snippets are run, and a wrong one fails: the rules of the root conftest."""

from pathlib import Path

import pytest
from sybil.example import SybilFailure

CONFTEST = Path(__file__).parents[1] / "conftest.py"

RIGHT = """\
```python
from pathlib import Path

numbers = [1, 2]
assert not list(Path.cwd().iterdir())
```

Names live on, and output is compared where there is one:

```python
numbers.append(3)
print(numbers, "after", 0.25, "s  ")
print()
print("done")
```

```text
[1, 2, 3] after ... s

done
```

A guarded snippet is a program:

```python
import sys
from concurrent.futures import ProcessPoolExecutor


def double(x):
    return 2 * x


if __name__ == "__main__":
    print("a warning, perhaps", file=sys.stderr)
    with ProcessPoolExecutor(1) as pool:
        print(pool.submit(double, 21).result())
```

It prints:

```text
42
```
"""


@pytest.fixture
def conftest(request):
    """Return the module whose rules are tested."""
    return request.config.pluginmanager.get_plugin(str(CONFTEST))


@pytest.fixture
def check(conftest, tmp_path):
    """Return a function that runs the snippets of one document."""

    def run_all(text):
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        for example in conftest.snippets.parse(page).examples():
            example.evaluate()

    return run_all


def test_pytest_runs_each_snippet(pytester):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    page = pytester.path / "page.md"
    page.write_text(RIGHT + "\n```python\nprint(1)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    result = pytester.runpytest_subprocess(page)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["Expected output:", "2", "Actual output:", "1"])


@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__":\n    '], ids=["bare", "guarded"])
@pytest.mark.parametrize(
    ("printed", "expected"), [("one", "two"), ("one", ""), ("", "one"), ("one\\ntwo", "one")]
)
def test_wrong_output_fails(check, guard, printed, expected):
    with pytest.raises(SybilFailure, match=f"Expected output:\n{expected}"):
        check(f"```python\n{guard}print('{printed}')\n```\n\n```text\n{expected}\n```\n")


def test_exception_fails_a_bare_snippet(check):
    with pytest.raises(ZeroDivisionError):
        check("```python\n1 / 0\n```\n")


def test_exception_fails_a_guarded_snippet_and_names_the_line_of_the_document(check):
    with pytest.raises(SybilFailure, match=r"(?s)exited with 1\..*line 5.*ZeroDivisionError"):
        check('# Title\n\n```python\nif __name__ == "__main__":\n    1 / 0\n```\n')


@pytest.mark.parametrize("waits", ["child.wait()", "pass"], ids=["hangs", "leaves a child behind"])
def test_script_that_does_not_end_fails(check, conftest, monkeypatch, waits):
    monkeypatch.setattr(conftest, "SCRIPT_TIMEOUT", 0.5)
    script = f"""\
import subprocess
import sys

if __name__ == "__main__":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
    {waits}
"""
    with pytest.raises(SybilFailure, match=r"still ran after 0\.5 s"):
        check(f"```python\n{script}```\n")


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("```text\n1\n```\n", "line 1, column 1: this output has no python block before"),
        (
            "```python\n1\n```\n\n```console\n$ ls\n```\n\n```text\n1\n```\n",
            "line 9, column 1: this output has no python block before",
        ),
        ("```py\n1 / 0\n```\n", "write ```python, not ```py"),
        ("```{code-block} python\n1 / 0\n```\n", "write ```python, not ```{code-block} python"),
    ],
    ids=["output alone", "output after another block", "py", "directive"],
)
def test_block_that_only_looks_tested_is_an_error(check, document, error):
    with pytest.raises(ValueError, match=error):
        check(document)
