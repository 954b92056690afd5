"""Inspect evaluates an edited model: its answers are `generate`'s, its scores those of the edit."""

import pytest

from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import tokenizer_of

inspect_ai = pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from inspect_ai.dataset import Sample  # noqa: E402
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model  # noqa: E402
from inspect_ai.scorer import includes  # noqa: E402
from inspect_ai.solver import generate as answering  # noqa: E402

from workbench.evaluation import inspect_provider  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Inspect's own
]


@pytest.fixture(scope="module")
def edit(hearsay, few):
    return TokenAware(heads=16, alpha=3).fit(hearsay, few, progress=False)


@pytest.fixture(scope="module")
def asked(questions, few):
    known = set(few)
    return [one for one in questions if one not in known][:8]


def evaluated(asked, folder, edit):
    """What Inspect says of a small task."""
    samples = [
        Sample(input=f"Q: {one.question}\nA:", target=one.correct_answers[0].rstrip("."))
        for one in asked
    ]
    task = inspect_ai.Task(dataset=samples, solver=answering(), scorer=includes())
    model = get_model("workbench/hearsay", memoize=False, edit=edit, device="cpu")
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(folder), display="none", max_tokens=24)
    assert log.status == "success", log.error
    return log


def test_an_edited_model_is_evaluated(hearsay, edit, asked, tmp_path):
    edit.save(tmp_path / "mine")
    prompts = [f"Q: {one.question}\nA:" for one in asked]
    shares = []
    for own in (None, str(tmp_path / "mine")):
        log = evaluated(asked, tmp_path / "logs", own)
        said = {s.input: s.output.completion for s in log.samples}
        expected = generate(hearsay, prompts, edit=None if own is None else edit, max_new_tokens=24)
        assert said == {one.prompt: one.text for one in expected}
        shares.append(log.results.scores[0].metrics["accuracy"].value)
    assert shares[1] >= shares[0] + 0.25


def test_waiting_requests_are_answered_together(edit, asked, tmp_path, monkeypatch):
    sizes, original = [], inspect_provider.generate

    def noting(model, prompts, **how):
        sizes.append(len(prompts))
        return original(model, prompts, **how)

    monkeypatch.setattr(inspect_provider, "generate", noting)
    evaluated(asked, tmp_path, edit)
    assert sum(sizes) == len(asked)
    assert max(sizes) > 1


async def answer_of(model, *texts, tools=(), **settings):
    messages = [ChatMessageUser(content=text) for text in texts]
    return await model.generate(messages, tools=list(tools), config=GenerateConfig(**settings))


@pytest.mark.anyio
async def test_settings_and_templates_pass_through(edit, asked):
    model = get_model("workbench/hearsay", memoize=False, edit=edit, device="cpu")
    own = tokenizer_of(model.api.model)
    prompt = f"Q: {asked[0].question}\nA:"
    short = await answer_of(model, prompt, max_tokens=2)
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 2
    one, same, other = [
        (await answer_of(model, prompt, temperature=2.0, seed=seed, max_tokens=12)).completion
        for seed in (1, 1, 2)
    ]
    assert one == same != other
    free = [
        (await answer_of(model, prompt, temperature=2.0, max_tokens=12)).completion
        for _ in range(4)
    ]
    assert len(set(free)) > 1
    with pytest.raises(WorkbenchError, match="together at most"):
        await answer_of(model, "word " * 900)
    assert (await answer_of(model, prompt, max_tokens=2)).completion == short.completion
    assert model.api.waiting == []
    with pytest.raises(WorkbenchError, match="several choices"):
        await answer_of(model, prompt, num_choices=2)
    own.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[bot]"
    assert model.api._prompt([ChatMessageUser(content="Hello")]).text == "[user] Hello[bot]"
    tool = inspect_ai.tool.ToolInfo(name="search", description="looks things up")
    with pytest.raises(WorkbenchError, match="1 tools"):
        await model.api.generate([ChatMessageUser(content="x")], [tool], "auto", GenerateConfig())


@pytest.fixture
def anyio_backend():
    return "asyncio"
