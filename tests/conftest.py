"""Fixtures: the embedded model, small random models of many architectures, shared material."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers and kernels share the cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch

from tests.browser import opened_browser
from workbench.data.sources import load_questions
from workbench.errors import WorkbenchError
from workbench.models.fetching import fetched
from workbench.models.loading import load_model
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture

hypothesis.settings.register_profile(
    "whatever the machine is busy with",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("whatever the machine is busy with")

SHARED = Path(__file__).resolve().parents[2] / "shared"
LONGEST = (
    "test_ablation", "test_package", "02_where_truth_lives", "07_three_capabilities",
    "04_editing_a_generation", "test_lab", "test_real_model", "test_harness", "test_real",
    "05_ablating", "01_token_graph", "03_risky_tokens", "test_runs", "09_a_real_model",
    "test_every_method", "06_your_model_and_data", "11_most_truth_per_nat", "test_natural_gradient",
)  # fmt: skip
"""Files that take longest, first: begun last, they would leave the other processes idle."""


SLOW = (
    "test_lab", "test_real", "test_real_model", "test_harness", "test_head_to_head", "test_lm_eval",
)  # fmt: skip
"""Files that `make test-slow` runs whole, as it does notebooks; of others what is marked slow."""
LONG = (
    "01_token_graph", "02_where_truth_lives", "03_risky_tokens", "04_editing_a_generation",
    "05_ablating", "06_your_model_and_data", "07_three_capabilities",
    "08_reference_against_corrected", "09_a_real_model", "11_most_truth_per_nat", "test_harness",
)  # fmt: skip
"""Those of them that `.ci/run` leaves out, for twenty minutes' sake."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb" or item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.path.stem in LONG:
            item.add_marker(pytest.mark.long)
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def shared():
    """The folder of shared material; absent on most machines."""
    if not SHARED.exists():
        pytest.skip(f"the shared material is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared):
    return dict(np.load(shared / "golden" / "reference_golden.npz"))


@pytest.fixture(scope="session")
def hearsay():
    return load_model("hearsay", device="cpu")


@pytest.fixture(scope="session")
def smollm2():
    """A real model with real text in its head; tests that need it are skipped where it is not."""
    try:
        fetched("smollm2")
    except WorkbenchError as error:
        pytest.skip(f"`workbench fetch smollm2` fetches the real model ({error.came})")
    return load_model("smollm2", device="cpu")


@pytest.fixture(scope="session")
def questions():
    return load_questions("hearsay")


@pytest.fixture(scope="session")
def few(questions):
    """Forty questions of all relations."""
    return questions.choose(range(0, len(questions), len(questions) // 40)[:40])


@pytest.fixture(scope="session")
def activations_of_few(hearsay, few):
    """Those questions' activations, which nobody changes."""
    return capture(hearsay, few, progress=False)


@pytest.fixture(scope="session")
def means_of_few(activations_of_few):
    """Their plain means over tokens, which nobody changes."""
    return aggregate(activations_of_few, depth=0)


@pytest.fixture
def as_shipped():
    """Without the annotations' run-time checks, as users run the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def browser():
    """A headless browser with one tab."""
    with opened_browser() as found:
        yield found


@pytest.fixture
def tab(browser):
    """Its tab, of which nothing was asked yet."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.look(1300)
    return browser


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
