"""The checks of a commit pass in a fresh copy of the project with a clean environment."""

import pytest
from newcomer import Home


@pytest.mark.prove  # CI does so before it runs the tests
def test_the_checks_pass_in_a_fresh_copy(home: Home) -> None:
    home.type("git add --all && make lint")


def test_the_hooks_pass(home: Home) -> None:
    home.type(
        "make install && . .venv/bin/activate && git add --all && pre-commit install && pre-commit run --all-files"
    )
