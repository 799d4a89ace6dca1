"""The reference describes each public name."""

import re
from pathlib import Path

import poolkit
import poolkit.aio
import poolkit.testing

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "index.md"


def test_reference_describes_exactly_the_public_names():
    text = REFERENCE.read_text(encoding="utf-8")
    directive = r"^\.\. (?:auto)?(?:function|class|exception|data):: (\w+)"
    described = re.findall(directive, text, re.MULTILINE)
    described += re.findall(r"^ {10}(\w+)$", text, re.MULTILINE)  # more names of one directive
    assert sorted(described) == sorted(
        [*poolkit.__all__, *poolkit.testing.__all__, *poolkit.aio.__all__]
    )
