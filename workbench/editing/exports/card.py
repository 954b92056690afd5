"""The card of an exported folder: what was changed, how it is used, what it does not do."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.editing.interventions import Intervention
from workbench.models.identity import Model, identify

TRANSFORMERS = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("/path/to/this/folder"{more})
tokenizer = AutoTokenizer.from_pretrained("/path/to/this/folder", padding_side="left")
given = tokenizer("Q: What is the capital of Australia?\\nA:", return_tensors="pt")
print(tokenizer.decode(model.generate(**given, max_new_tokens=20)[0]))
```"""
STATIC = """The edit adds the same to every token, and is held here by biases. Prompts are edited
too: logits are those of the edit from position 0 on. Edits that begin at the last prompt token, as
the workbench attaches them by default, leave prompts as they are and are slightly different."""
SCRIPTED = """The weights are the model's own. The edit's strength follows every token, so it is
computed while the model writes: by `custom_generate/generate.py`, which reads `edit.json` and
`edit.safetensors`. Read the script before you let it run. It edits what `generate` writes, from the
last prompt token on; other passes of the model are not edited. Loaded without
`trust_remote_code=True`, or saved again by `save_pretrained`, the model is the unedited one. Load
the folder by an absolute path if your program changes folders."""
VECTOR = """`control_vector.gguf` holds the same as a control vector, in the form of repeng's:
`direction.N` is added to what layer N leaves in the residual stream, at the scale 1. llama.cpp
reads it (`--control-vector-scaled control_vector.gguf:1.0`)."""


def card(edit: Intervention, model: Model, files: Sequence[str], left_out: str = "") -> str:
    """A README in Markdown.

    Args:
        edit: what was exported.
        model: the bridge.
        files: names of what is in the folder.
        left_out: why there are no weights, if there are none.
    """
    known = identify(model)
    scripted, weights = "edit.json" in files, "config.json" in files
    parts = [f"# {known.label}, edited", f"{edit.settings.get('method', 'An edit')}: `{edit!r}`."]
    if weights:
        more = ", trust_remote_code=True" if scripted else ""
        parts += [SCRIPTED if scripted else STATIC, TRANSFORMERS.format(more=more)]
    if "control_vector.gguf" in files:
        parts.append(VECTOR)
    if left_out:
        parts.append(f"There are no weights, which would not be exact: {left_out}.")
    fitted = [f"- `{name}`: {value}" for name, value in sorted(edit.settings.items())]
    if fitted:
        parts.append("How it was fitted:\n\n" + "\n".join(fitted))
    parts.append(
        f"Base model: {known.label}. What the edit does to truth, to other text and to questions "
        "that it was not fitted on was not measured by writing this folder; measure it before use."
    )
    return "\n\n".join(parts) + "\n"
