"""What `import poolkit` gives, and what it costs."""

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import poolkit
import poolkit.testing

# Each would be felt at every start of every program that uses poolkit.
HEAVY = {
    "asyncio",
    "cloudpickle",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "multiprocessing",
    "rich",
    "tqdm",
}


@pytest.fixture(params=[poolkit, poolkit.testing], ids=lambda module: module.__name__)
def package(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_all_is_a_sorted_tuple(package: Any) -> None:
    assert isinstance(package.__all__, tuple)
    assert list(package.__all__) == sorted(set(package.__all__), key=constants_classes_functions)


def constants_classes_functions(name: str) -> tuple[bool, bool, str]:
    return not name.isupper(), name.islower(), name


def test_all_is_what_type_checkers_see_and_what_is_there(package: Any) -> None:
    tree = ast.parse(Path(package.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname for node in imports for alias in node.names if alias.asname}
    assert set(package.__all__) == shown == set(package._home_of)
    assert shown <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        package.no_such  # noqa: B018


def test_public_names_say_where_they_come_from(package: Any) -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if not isinstance(value, str):
            assert value.__module__ == package.__name__, name
            assert pickle.loads(pickle.dumps(value)) is value, name


def test_public_names_are_documented(package: Any) -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if not isinstance(value, str):
            assert value.__doc__, name


def test_import_is_light() -> None:
    script = "import json, sys, poolkit; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    assert not HEAVY & set(json.loads(loaded.stdout))


def test_a_kind_is_loaded_when_it_is_first_made() -> None:
    script = """\
import sys, poolkit
assert not [name for name in sys.modules if name.startswith("poolkit.backends.")]
with poolkit.make_executor("thread") as pool:
    assert list(poolkit.map_ordered(pool, abs, [-1])) == [1]
print(*[name for name in ("multiprocessing", "asyncio", "tqdm") if name in sys.modules])
"""
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True
    )
    assert loaded.stdout.split() == []
