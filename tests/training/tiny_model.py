"""A tokenizer of single bytes, a tiny configuration and conversations, for tests that train through the program."""

import json

# The split of o200k, without which no tokenizer.json is taken.
PATTERN = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
MARKERS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>",
           "<|endoftext|>"]

CONFIG = {
    "model_type": "gpt_oss", "num_hidden_layers": 1, "num_local_experts": 2, "num_experts_per_tok": 1,
    "vocab_size": 256 + len(MARKERS), "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 16, "max_position_embeddings": 64,
    "initial_context_length": 64, "attention_bias": True, "tie_word_embeddings": False,
}


def byte_tokenizer():
    """A tokenizer.json whose ordinary tokens are the 256 bytes, in GPT-2's alphabet."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    alphabet = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return {"added_tokens": [{"id": 256 + i, "content": text, "special": True} for i, text in enumerate(MARKERS)],
            "normalizer": None, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": PATTERN}},
            "model": {"type": "BPE", "vocab": {alphabet[byte]: byte for byte in range(256)}, "merges": []}}


def conversation(question, answer, system=()):
    return json.dumps({"messages": [*system, {"role": "user", "content": question},
                                    {"role": "assistant", "channel": "final", "content": answer}]})


def write_inputs(folder, pairs, system=(), **config):
    """config.json, tokenizer.json and data.jsonl in `folder`; `system`: messages before each question; `config` changes
    CONFIG."""
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    (folder / "data.jsonl").write_text("".join(conversation(q, a, system) + "\n" for q, a in pairs))
