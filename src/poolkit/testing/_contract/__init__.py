"""`ExecutorContract`: the suite that every executor passes; a file for each part of the contract.

`base` holds what all parts share; `suite` puts them together. The tasks are elsewhere, in
`poolkit.testing._contract_tasks`, so that workers need not import pytest.
"""

import pytest

# Before they are imported: a failed `assert` should show its values to whoever reads it.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in (
            "bounds",
            "claims",
            "events",
            "failures",
            "groups",
            "mapping",
            "retries",
            "shutdown",
            "submitting",
            "verbs",
        )
    )
)

from .suite import ExecutorContract as ExecutorContract  # noqa: E402
