"""Who judged: names of models that tell one from another, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from workbench.models.bridging import looks_like_folder
from workbench.models.fingerprints import fingerprint_of_parameters
from workbench.models.identity import fingerprint_of_config


def identity_of(model: Any, tokenizer: Any) -> str:
    """A loaded model's name, its revision on the hub, its config, weights and tokenizer.

    Of a folder the last part is told alone: where it lies is nobody's business.
    """
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    revision = getattr(model.config, "_commit_hash", None)
    at = f"@{revision[:12]}" if revision else ""
    called = Path(name).resolve().name if looks_like_folder(name) else name
    return f"{called}{at}, {fingerprints_of(model, tokenizer)}"


def fingerprints_of(model: Any, tokenizer: Any) -> str:
    """Of a config, of weights, buffers among them, and of what a tokenizer makes of texts."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    state: Any = tokenizer.get_vocab()
    if fast is not None:
        state = json.loads(fast.to_str())
        # Its last call leaves these behind.
        state = {key: own for key, own in state.items() if key not in ("truncation", "padding")}
    own = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    weights = fingerprint_of_parameters(model, buffers=True)
    return f"config {fingerprint_of_config(model.config)}, weights {weights}, tokenizer {own}"
