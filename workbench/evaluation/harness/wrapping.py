"""The model as lm-evaluation-harness takes it, and whether the harness is there."""

from __future__ import annotations

from typing import Any

from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.models.identity import Model


def require_harness() -> None:
    """Refuse to go on without lm-evaluation-harness."""
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise WorkbenchError.lacking("lm-eval", "lm-evaluation-harness", "harness") from None


@door
def lm_eval(model: Model, edit: Intervention | None = None, **settings: Any) -> Any:
    r"""An edited model for `lm_eval.simple_evaluate`, of lm-evaluation-harness.

    Multiple choice and rolling perplexity are edited from the last token of each row's own context
    on, generation from the last token of its prompt. The harness' own model class cannot be used
    inside `edited`: it does not say where contexts end, and is refused there.

    Args:
        model: the bridge.
        edit: what to apply; None applies nothing.
        settings: of `lm_eval.models.huggingface.HFLM`, such as `batch_size` and `max_length`.

    Raises:
        WorkbenchError: the harness is not installed, or the edit is of another shape of model.

    Example:
        >>> import lm_eval
        >>> from workbench.evaluation.harness.tasks import truthfulqa
        >>> edited_model = wb.evaluation.lm_eval(model, edit, batch_size=16)
        >>> task = truthfulqa(fold.test, "mc1", doc_to_text="Q: {{question}}\nA:")
        >>> found = lm_eval.simple_evaluate(edited_model, tasks=[task], bootstrap_iters=0)
        >>> float(round(found["results"]["truthfulqa_mc1"]["acc,none"], 2))
        0.92
    """
    require_harness()
    from workbench.evaluation.harness.edited_lm import EditedLM

    return EditedLM(model, edit, **settings)
