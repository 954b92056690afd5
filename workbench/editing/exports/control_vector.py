"""A vector in the residual stream as GGUF, as repeng writes and llama.cpp reads control vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from workbench.models.identity import Model
from workbench.models.passes import Place

ARCHITECTURE = "controlvector"


def write_control_vector(shifts: Mapping[Place, Tensor], model: Model, path: Path) -> None:
    """Write `direction.N`, which is added to what layer N leaves in the residual stream.

    Layers are counted from 0; llama.cpp refuses files that hold one of layer 0.

    Args:
        shifts: [d_model] by place, α included: it is applied at the scale 1.
        model: the bridge, whose architecture is named as a hint.
        path: the file.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model.original_model.config.model_type)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(shifts))
    for (_, layer), vector in sorted(shifts.items(), key=lambda own: own[0][1]):
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
