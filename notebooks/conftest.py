"""Notebooks under test: small samples, none without its weights, and none run twice."""

import importlib.util
import os

import pytest

from tests.browser import browser_path
from workbench.errors import WorkbenchError
from workbench.models.fetching import fetched

os.environ.setdefault("WORKBENCH_SAMPLE", "8")
NEEDS = {"09_a_real_model.ipynb": "smollm2"}
IN_LAB = "00_tour.ipynb"
"""The one that `tests/test_lab.py` runs from its first cell to its last, where it can."""


def pytest_collection_modifyitems(items):
    lab = importlib.util.find_spec("jupyterlab") is not None and browser_path() is not None
    lab &= any(item.path.name == "test_lab.py" for item in items)
    for item in items:
        if lab and item.path.name == IN_LAB:
            item.add_marker(pytest.mark.skip(reason="run in JupyterLab, by tests/test_lab.py"))
        name = NEEDS.get(item.path.name)
        if name is None:
            continue
        try:
            fetched(name)
        except WorkbenchError as error:
            item.add_marker(pytest.mark.skip(reason=str(error)))
