"""The checks, one session each: `uv run nox` runs all, `uv run nox -s types` one of them.

Every session has an environment of its own, filled from the dependency groups of
`pyproject.toml` through the one `uv.lock`, so that all of them agree on versions.
"""

import shutil

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "layers", "docs", "arrays", "tests"]


def sync(session: nox.Session, *groups: str) -> None:
    """Make the session's environment hold poolkit and some dependency groups."""
    session.run_install(
        "uv",
        "sync",
        "--quiet",
        "--no-default-groups",
        *(f"--group={group}" for group in groups),
        f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )


@nox.session(python=["3.11", "3.12", "3.13", "3.14", "3.15"])
def tests(session: nox.Session) -> None:
    """Run the tests, the snippets of README and docs among them; skips a missing Python."""
    sync(session, "test", "sample")
    session.run("pytest", *session.posargs)


@nox.session
def arrays(session: nox.Session) -> None:
    """Run the tests that need numpy."""
    sync(session, "arrays")
    session.run("pytest", "tests/faults/test_buffers.py", "-k", "numpy", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and show which lines no process has run."""
    sync(session, "test", "sample")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format, and that the news fragments make a changelog."""
    sync(session, "dev")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("towncrier", "build", "--draft", "--version=next")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, with mypy and with pyright."""
    sync(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def layers(session: nox.Session) -> None:
    """Check that each layer imports only from the layers below it."""
    sync(session, "dev")
    session.run("lint-imports", "--no-logo")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation from scratch; a warning is an error."""
    sync(session, "docs")
    shutil.rmtree("docs/_build", ignore_errors=True)
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(python=["3.11", "3.12", "3.13"])
def counts(session: nox.Session) -> None:
    """Count instructions and system calls; `-- --update` takes them for those to be kept to."""
    sync(session)
    session.run("python", "-m", "benchmarks.counts", *session.posargs)
