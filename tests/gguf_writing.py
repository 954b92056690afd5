"""GGUF files of small random models, written as llama.cpp's converter writes them."""

import json

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from tests.architectures import tokenizer

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
NORMAL, CONTROL = 1, 3


def permuted(weight, heads):
    """Rows of queries or keys in llama.cpp's order: the two halves of each head interleaved."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, kind=Kind.F32, licence="apache-2.0", changes=None, without=()):
    """Write a Hugging Face model with the tokenizer of `architectures`.

    `changes` are key-value pairs to add or to replace; tensors whose names are in `without` are
    left out. Matrices are of the kind that is given, all else is F32.
    """
    config = model.config
    name = config.model_type
    writer = gguf.GGUFWriter(str(path), name)
    writer.add_name("tiny")
    if licence:
        writer.add_license(licence)
    writer.add_file_type({Kind.F32: LlamaFileType.ALL_F32, Kind.Q8_0: LlamaFileType.MOSTLY_Q8_0,
                          Kind.F16: LlamaFileType.MOSTLY_F16}[kind])  # fmt: skip
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, config.vocab_size)
    for key, value in (changes or {}).items():
        writer.add_key_value(key, *value)
    names = gguf.get_tensor_name_map(ARCHITECTURES[name], config.num_hidden_layers)
    for own, tensor in model.state_dict().items():
        base, _, suffix = own.rpartition(".")
        known = f"{names.get_name(base)}.{suffix}"
        if known in without:
            continue
        values = tensor.float().numpy()
        if name == "llama" and (".q_proj." in own or ".k_proj." in own):
            queries = ".q_proj." in own
            heads = config.num_attention_heads if queries else config.num_key_value_heads
            values = permuted(values, heads)
        chosen = kind if values.ndim == 2 else Kind.F32
        if chosen == Kind.F16:
            writer.add_tensor(known, values.astype(np.float16))
        elif chosen == Kind.F32:
            writer.add_tensor(known, np.ascontiguousarray(values))
        else:
            writer.add_tensor(known, gguf.quants.quantize(values, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer, size):
    described = json.loads(tokenizer(bos=False).backend_tokenizer.to_str())["model"]
    tokens = [token for token, _ in sorted(described["vocab"].items(), key=lambda own: own[1])]
    tokens += [f"<unused {number}>" for number in range(len(tokens), size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if t in ("<s>", "</s>") else NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
