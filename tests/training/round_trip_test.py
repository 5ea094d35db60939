#!/usr/bin/env python3
"""A tiny model learns eight answers by heart; exported in every public form, each must verify and give these answers.

Usage: round_trip_test.py GPTOSS_BINARY [--llamacpp COMMAND…]
  --llamacpp: a command that is given MODEL.gguf TOKENS.json --gen N and prints {"ids": […]}, its greedy continuation; it
  must say the same. Everything after the flag is that command.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import tiny_model

GPTOSS = None
LLAMACPP = []

PAIRS = [("2+2?", "4"), ("3+5?", "8"), ("hi", "hello"), ("red?", "a colour"), ("cat?", "an animal"), ("7*8?", "56"),
         ("moon?", "far away"), ("bye", "see you")]
# name, flags of the export
FORMS = [("hf", ["--export-format", "hf"]), ("original", ["--export-format", "original"]),
         ("model.gguf", ["--export-format", "gguf"]), ("hf-bf16", ["--export-format", "hf", "--export-experts", "bf16"]),
         ("bf16.gguf", ["--export-format", "gguf", "--export-experts", "bf16"])]
# What run tells the model with these flags.
DATE, IDENTITY = "2025-06-28", "You are tiny."
SYSTEM = {"role": "system", "content": [{
    "type": "system_content", "model_identity": IDENTITY, "reasoning_effort": "Low", "knowledge_cutoff": "2024-06",
    "conversation_start_date": DATE,
    "channel_config": {"valid_channels": ["analysis", "commentary", "final"], "channel_required": True}}]}
RETURN, MESSAGE, CHANNEL = (256 + tiny_model.MARKERS.index(f"<|{name}|>") for name in ("return", "message", "channel"))


def gptoss(*arguments, stdin=""):
    done = subprocess.run([GPTOSS, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError(f"{arguments}: {done.stderr}")
    return done


class RoundTrip(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = path = pathlib.Path(cls.folder.name)
        tiny_model.write_inputs(path, PAIRS, [SYSTEM], num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2,
                                max_position_embeddings=512, initial_context_length=512)
        cls.reports = {}
        common = ["train", "--data", path / "data.jsonl", "--from-scratch", path / "config.json", "--tokenizer",
                  path / "tokenizer.json", "--quiet", "--out", path / "run", "--steps", 200, "--lr", 0.01, "--warmup", 10,
                  "--batch-tokens", 4096, "--round-experts"]
        for i, (name, flags) in enumerate(FORMS):
            # The others are at their last step already: they export what the first has trained.
            done = gptoss(*common, *flags, "--export", path / name, *(["--resume"] if i > 0 else []))
            cls.reports[name] = done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def prompt(self, question):
        line = {"conversation": {"messages": [SYSTEM, {"role": "user", "content": question}]}, "next_role": "assistant"}
        done = gptoss("render", "--tokenizer", self.path / "tokenizer.json", stdin=json.dumps(line) + "\n")
        path = self.path / "tokens.json"
        path.write_text(json.dumps(json.loads(done.stdout)["ids"]))
        return path

    def answer(self, answer):
        return [CHANNEL, *b"final", MESSAGE, *answer.encode(), RETURN]

    def test_every_form_gives_the_trained_answers(self):
        for name, _ in FORMS:
            for question, answer in PAIRS:
                want = self.answer(answer)
                for exact in ([], ["--exact"]):
                    done = gptoss("generate", "--model", self.path / name, "--tokens-file", self.prompt(question),
                                  "--max-tokens", len(want), "--temperature", 0, "--json", *exact)
                    # Generation ends at <|return|>, which ids may leave out.
                    ids = json.loads(done.stdout)["ids"]
                    self.assertEqual(ids[:len(want) - 1], want[:-1], f"{name} {question} {exact}")
                    self.assertIn(ids[len(want) - 1:], ([], [RETURN]), f"{name} {question} {exact}")

    def test_an_adapter_changes_answers_in_every_command_and_merged(self):
        changed = [("2+2?", "vier"), ("hi", "hallo")]
        (self.path / "more.jsonl").write_text(
            "".join(tiny_model.conversation(q, a, [SYSTEM]) + "\n" for q, a in changed))
        adapter, merged = self.path / "adapter", self.path / "merged"
        gptoss("train", "--lora", 4, "--model", self.path / "hf", "--data", self.path / "more.jsonl", "--out",
               self.path / "lora", "--steps", 150, "--lr", 0.02, "--warmup", 5, "--export", adapter, "--quiet")
        gptoss("convert", "--model", self.path / "hf", "--merge", adapter, "--bf16-experts", "--to", "hf", "--out", merged)
        for (question, answer), old in zip(changed, ("4", "hello")):
            for flags, want in [(["--model", self.path / "hf", "--adapter", adapter], answer),
                                (["--model", merged], answer), (["--model", self.path / "hf"], old)]:
                done = gptoss("generate", *flags, "--tokens-file", self.prompt(question), "--max-tokens",
                              len(self.answer(want)) - 1, "--temperature", 0, "--exact", "--json")
                self.assertEqual(json.loads(done.stdout)["ids"], self.answer(want)[:-1], f"{question} {flags}")
        done = gptoss("bench", "--model", self.path / "hf", "--adapter", adapter, "--prompt", 16, "--gen", 4, "--repeat", 1,
                      "--json")
        self.assertEqual(json.loads(done.stdout)["decode"]["tokens"], 4)
        self.assertIn("hallo", self.completion(["--adapter", adapter], "hi"))
        self.assertIn("hello", self.completion([], "hi"))

    def completion(self, flags, question):
        """The raw continuation that serve gives."""
        server = subprocess.Popen([GPTOSS, "serve", "--model", self.path / "hf", "--port", "0", *flags],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = re.search(r"http://\S+", server.stdout.readline())[0]
            body = {"model": "tiny", "prompt": json.loads(self.prompt(question).read_text()), "max_tokens": 16,
                    "temperature": 0}
            request = urllib.request.Request(address.rstrip("/.") + "/v1/completions", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["choices"][0]["text"]
        finally:
            server.terminate()
            server.wait(timeout=60)
            server.stdout.close()

    def test_every_form_verifies(self):
        for name, _ in FORMS:
            report = json.loads(gptoss("verify", "--model", self.path / name, "--json").stdout)
            self.assertTrue(report["passed"], f"{name}: {report}")

    def test_run_answers_from_every_form(self):
        for name, _ in FORMS:
            for question, answer in PAIRS[2:5]:
                done = gptoss("run", "-q", "--model", self.path / name, "--temperature", 0, "--date", DATE, "--effort",
                              "low", "--system", IDENTITY, question)
                self.assertEqual(done.stdout, answer + "\n", f"{name} {question}")

    def test_the_loss_before_and_after_rounding_is_reported(self):
        for name, _ in FORMS:
            form = "BF16" if "bf16" in name else "MXFP4"
            self.assertRegex(self.reports[name], rf"experts rounded to {form} \(relative error 0\.\d+\)")
            self.assertRegex(self.reports[name], r"loss on the training data: \d\.\d+ in float, 0\.0\d+ rounded")

    @unittest.skipUnless("--llamacpp" in sys.argv, "needs --llamacpp")
    def test_llama_cpp_gives_the_trained_answers(self):
        for name, question, answer in [("model.gguf", *pair) for pair in PAIRS] + [("bf16.gguf", *PAIRS[2])]:
            want = self.answer(answer)
            done = subprocess.run([*LLAMACPP, self.path / name, self.prompt(question), "--gen", str(len(want))],
                                  capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["ids"][:len(want)], want, question)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--llamacpp" in arguments:
        at = arguments.index("--llamacpp")
        LLAMACPP = arguments[at + 1:]
        arguments = arguments[:at]
    GPTOSS = arguments.pop(0)
    unittest.main(argv=[sys.argv[0], *arguments])
