#!/usr/bin/env python3
"""gptoss train as a user meets it: preview, bad data, a run that is stopped and resumed, export.

Usage: train_cli_test.py GPTOSS_BINARY
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

GPTOSS = None

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


def conversation(question, answer):
    return json.dumps({"messages": [{"role": "user", "content": question},
                                    {"role": "assistant", "channel": "final", "content": answer}]})


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        (self.path / "config.json").write_text(json.dumps(CONFIG))
        (self.path / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
        (self.path / "data.jsonl").write_text(
            "\n".join(conversation(q, a) for q, a in [("one", "1"), ("two", "2"), ("three", "3")]) + "\n")

    def tearDown(self):
        self.folder.cleanup()

    def run_train(self, *arguments):
        return subprocess.run(
            [GPTOSS, "train", "--data", self.path / "data.jsonl", "--from-scratch", self.path / "config.json",
             "--tokenizer", self.path / "tokenizer.json", "--quiet", *arguments], capture_output=True, text=True, timeout=300)

    def metrics(self, run):
        lines = [json.loads(line) for line in (self.path / run / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    def test_preview_marks_what_is_trained_on(self):
        done = self.run_train("--preview", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("<|start|>user<|message|>one<|end|><|start|>assistant"
                      "⟦<|channel|>final<|message|>1<|return|>⟧", done.stdout)
        self.assertNotIn("two", done.stdout)
        self.assertIn("3 conversations", done.stderr)

    def test_bad_lines_stop_the_run_and_are_named(self):
        with open(self.path / "data.jsonl", "a") as data:
            data.write('{"messages": [{"role": "robot", "content": "x"}]}\n{"messages": [\n')
            data.write(conversation("word " * 80, "long") + "\n")
        done = self.run_train("--out", self.path / "run")
        self.assertEqual(done.returncode, 1)
        for line, reason in [(4, "role"), (5, ""), (6, "more than the 64")]:
            self.assertTrue(any(f"data.jsonl:{line}: " in text and reason in text
                                for text in done.stderr.splitlines()), done.stderr)
        self.assertFalse((self.path / "run").exists())

    def test_wrong_usage(self):
        for arguments, word in [((), "--out"), (("--out", "x", "--lr", "-1"), "--lr"),
                                (("--out", "x", "--model", "nano"), "--from-scratch")]:
            done = self.run_train(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(word, done.stderr)
        (self.path / "bad.json").write_text('{"learning_rate": 1}')
        done = self.run_train("--config", self.path / "bad.json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("learning_rate", done.stderr)
        done = self.run_train("--out", self.path / "run", "--train", "no.such")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no.such", done.stderr)

    def test_resumed_run_equals_a_straight_one_and_exports(self):
        (self.path / "settings.json").write_text(json.dumps(
            {"steps": 6, "lr": 0.01, "save-every": 3, "batch-tokens": 40, "schedule": "linear"}))
        settings = ("--config", self.path / "settings.json")
        done = self.run_train(*settings, "--out", self.path / "a", "--export", self.path / "model")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("MXFP4", done.stderr)
        straight = self.metrics("a")
        self.assertEqual([step for step, _ in straight], [1, 2, 3, 4, 5, 6])
        self.assertLess(straight[-1][1], straight[0][1])
        self.assertEqual(sorted(p.name for p in (self.path / "a").iterdir()),
                         ["curves.html", "metrics.jsonl", "step-00000003", "step-00000006"])

        # As if killed after step 4: the state of step 3 is the newest, and metrics have a line too many.
        (self.path / "b").mkdir()
        (self.path / "a" / "step-00000003").rename(self.path / "b" / "step-00000003")
        lines = (self.path / "a" / "metrics.jsonl").read_text().splitlines()[:4]
        (self.path / "b" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
        refused = self.run_train(*settings, "--out", self.path / "b")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--resume", refused.stderr)
        done = self.run_train(*settings, "--out", self.path / "b", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.metrics("b"), straight)
        last = "step-00000006/state.bin"
        self.assertEqual((self.path / "a" / last).read_bytes(), (self.path / "b" / last).read_bytes())

        self.assertTrue((self.path / "model" / "tokenizer.json").exists())
        tokens = self.path / "tokens.json"
        tokens.write_text("[1, 2, 3]")
        served = subprocess.run([GPTOSS, "generate", "--model", self.path / "model", "--tokens-file", tokens,
                                 "--max-tokens", "2", "--temperature", "0", "--json"],
                                capture_output=True, text=True, timeout=300)
        self.assertEqual(served.returncode, 0, served.stderr)
        self.assertEqual(len(json.loads(served.stdout)["ids"]), 2)

    def test_dry_run_says_how_much_memory_is_needed(self):
        done = self.run_train("--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("weights", done.stderr)
        done = subprocess.run([GPTOSS, "train", "--data", self.path / "data.jsonl", "--from-scratch", "120b",
                               "--tokenizer", self.path / "tokenizer.json", "--dry-run"], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 1)
        self.assertIn("this machine has", done.stderr)


if __name__ == "__main__":
    GPTOSS = sys.argv.pop(1)
    unittest.main()
