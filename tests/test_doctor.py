"""``python -m poolkit doctor``."""

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from poolkit import __main__ as program
from poolkit import available_cpus

from .clusters.start import needs


def test_it_tells_what_there_is() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "poolkit", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sys.version.split()[0] in finished.stdout
    for word in ("inline", "thread", "process", "forkserver", "cloudpickle", "pickled"):
        assert word in finished.stdout
    assert finished.stderr == ""


def test_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert program.main(["doctor"]) == 0
    assert f"CPUs for this process: {available_cpus()}" in capsys.readouterr().out


def test_a_kind_that_can_not_be_made_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(kind: str, **options: Any) -> Any:
        raise OSError("no shared memory")

    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(program, "make_executor", refuse)
    program.main(["doctor"])
    assert "process: can't be made here: OSError: no shared memory" in capsys.readouterr().out


@needs("distributed")
@needs("sample_kind")
def test_clusters_and_installed_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    """Clusters are described without starting one."""
    program.main(["doctor"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "dask" in shown
    assert "goes on in its thread" in shown
    assert "poolkit-sample-kind (sample_kind:make_crew)" in shown


def test_a_cluster_whose_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    program.main(["doctor"])
    assert "dask: needs distributed, which is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["docter"], ["doctor", "--now"]], ids=str)
def test_wrong_calls(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m poolkit" in capsys.readouterr().err
