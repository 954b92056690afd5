"""Notebooks under test: small samples, and none that needs weights which were not fetched."""

import os

import pytest

from workbench.errors import WorkbenchError
from workbench.models.fetching import fetched

os.environ.setdefault("WORKBENCH_SAMPLE", "8")
NEEDS = {"09_a_real_model.ipynb": "smollm2"}


def pytest_collection_modifyitems(items):
    for item in items:
        name = NEEDS.get(item.path.name)
        if name is None:
            continue
        try:
            fetched(name)
        except WorkbenchError as error:
            item.add_marker(pytest.mark.skip(reason=str(error)))
