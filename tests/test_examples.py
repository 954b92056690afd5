"""Every public name has an example in its docstring, and each shows what one gets."""

import doctest
import inspect

import pytest

import workbench as wb

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS  # long lines are wrapped
PUBLIC = {
    **{name: getattr(wb, name) for name in wb.__all__},
    **{f"{room}.{name}": getattr(getattr(wb, room), name)
       for room in wb.ROOMS for name in getattr(wb, room).__all__},
}  # fmt: skip
NO_EXAMPLE = {"models.Model"}  # a name for types alone
SLOW = ("evaluation.lm_eval", "runs.harness")
ONCE = {id(public): name for name, public in PUBLIC.items() if name not in NO_EXAMPLE}


def run(docstring, name, names):
    """Run a docstring's examples, and return what they leave behind."""
    example = doctest.DocTestParser().get_doctest(docstring, names, name, None, 0)
    told = []
    failed, tried = doctest.DocTestRunner(optionflags=FLAGS).run(
        example, out=told.append, clear_globs=False
    )
    assert tried, f"{name} has no example"
    assert not failed, "".join(told)
    return example.globs


@pytest.fixture(scope="module")
def begun():
    return run(inspect.getdoc(wb), "workbench", {})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in ONCE.values()
    ],
)
def test_examples_show_what_one_gets(name, begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(inspect.getdoc(PUBLIC[name]), name, dict(begun))
