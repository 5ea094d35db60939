#!/usr/bin/env python3
"""The command-line contracts of logits, generate, bench, plan, verify and info, on the golden micro model.

usage: cli_test.py GPTOSS GOLDEN_FOLDER
"""

import ast
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

GPTOSS = sys.argv[1]
GOLDEN = pathlib.Path(sys.argv[2])
MODEL = str(GOLDEN / "micro/checkpoint/hf")


def run(*arguments, stdin=None):
    return subprocess.run([GPTOSS, *arguments], input=stdin, capture_output=True, text=True, timeout=300)


def read_npy(path):
    """(shape, list of floats) of a float32 array in format version 1.0."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    (size,) = struct.unpack("<H", data[8:10])
    header = ast.literal_eval(data[10 : 10 + size].decode())
    assert header["descr"] == "<f4" and not header["fortran_order"]
    body = data[10 + size :]
    return header["shape"], struct.unpack(f"<{len(body) // 4}f", body)


class Contracts(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.sequences = json.loads((GOLDEN / "micro/sequences.json").read_text())

    def tokens_file(self, *names):
        path = pathlib.Path(self.folder.name) / "tokens.json"
        path.write_text("\n".join(json.dumps(self.sequences[n]) for n in names))
        return str(path)

    def test_logits_of_all_positions(self):
        out = self.folder.name + "/o.npy"
        result = run("logits", "--model", MODEL, "--tokens-file", self.tokens_file("s7"), "--exact", "--out", out, "-q")
        self.assertEqual(result.returncode, 0, result.stderr)
        shape, got = read_npy(out)
        _, want = read_npy(GOLDEN / "micro/s7.logits.f32.npy")
        self.assertEqual(shape, (7, 640))
        difference = sum((a - b) ** 2 for a, b in zip(got, want)) / sum(b * b for b in want)
        self.assertLess(difference**0.5, 2e-5)

    def test_logits_of_several_sequences(self):
        out = self.folder.name + "/o.npy"
        tokens = self.tokens_file("s7", "r244")
        result = run("logits", "--model", MODEL, "--tokens-file", tokens, "--positions", "last:3", "--out", out, "-q")
        self.assertEqual(result.returncode, 0, result.stderr)
        for i in range(2):
            self.assertEqual(read_npy(f"{self.folder.name}/o.{i}.npy")[0], (3, 640))

    def test_generate_gives_the_golden_tokens(self):
        want = json.loads((GOLDEN / "micro/greedy.json").read_text())["r266"]["f32"]["tokens"]
        arguments = ["--max-tokens", "32", "--temperature", "0", "--exact", "--json", "-q"]
        result = run("generate", "--model", MODEL, "--tokens-file", self.tokens_file("r266"), *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(document["ids"], want)
        self.assertEqual(document["stop_reason"], "max_tokens")
        self.assertEqual(document["timings"]["output_tokens"], 32)

    def test_a_seed_gives_the_same_tokens(self):
        arguments = ["generate", "--model", MODEL, "--tokens-file", self.tokens_file("s7"), "--json", "-q", "--seed"]
        ids = [json.loads(run(*arguments, seed).stdout)["ids"] for seed in ("5", "5", "6")]
        self.assertEqual(ids[0], ids[1])
        self.assertNotEqual(ids[0], ids[2])

    def test_bench_has_the_promised_keys(self):
        result = run("bench", "--model", MODEL, "--prompt", "40", "--gen", "4", "--batch", "2", "--repeat", "2", "--json", "-q")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(document["prefill"]["tokens"], 80)
        self.assertEqual(document["decode"]["tokens"], 8)
        for path in ("prefill.tok_s", "decode.tok_s", "load_s", "ttft_s", "peak_rss_bytes", "bandwidth.measured_gb_s",
                     "bandwidth.decode_gb_s", "compute.measured_tflop_s"):  # fmt: skip
            value = document
            for key in path.split("."):
                value = value[key]
            self.assertGreater(value, 0, path)
        self.assertTrue(document["target"])

    def test_bench_measures_every_combination(self):
        arguments = ["--prompt", "8,40", "--context", "0,150", "--batch", "1,3", "--gen", "2", "--repeat", "2", "-q"]
        result = run("bench", "--model", MODEL, *arguments, "--json", "--profile", "--loads", "2")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        runs = document["runs"]
        want = [(p, c, b) for p in (8, 40) for c in (0, 150) for b in (1, 3)]
        self.assertEqual([(r["prompt"], r["context"], r["batch"]) for r in runs], want)
        self.assertEqual(document["decode"], runs[0]["decode"])
        for r in runs:
            self.assertEqual(r["prefill"]["tokens"], r["prompt"] * r["batch"])
            self.assertLessEqual(r["decode"]["tok_s_min"], r["decode"]["tok_s"])
            self.assertLessEqual(r["decode"]["tok_s"], r["decode"]["tok_s_max"])
            decode = r["profile"]["decode"]
            self.assertEqual((decode["passes"], decode["rows"]), (4, 4 * r["batch"]))
            self.assertEqual(r["profile"]["prefill"]["rows"], 2 * r["prompt"] * r["batch"])
            self.assertAlmostEqual(sum(s["percent"] for s in decode["stages"].values()), 100, places=6)
        # A context adds keys and values, a batch experts; neither adds anything else to what a step reads.
        by = {(r["prompt"], r["context"], r["batch"]): r["decode"] for r in runs}
        self.assertGreater(by[8, 150, 1]["kv_bytes_per_step"], by[8, 0, 1]["kv_bytes_per_step"])
        self.assertEqual(by[8, 0, 1]["experts_per_layer"], 4)
        self.assertGreater(by[8, 0, 3]["experts_per_layer"], 4)
        noise = json.loads(run("bench", "--model", MODEL, *arguments, "--json", "--noise-context").stdout)
        self.assertEqual((document["noise_context"], noise["noise_context"]), (False, True))
        for ours, theirs in zip(noise["runs"], runs):
            self.assertEqual(ours["decode"]["kv_bytes_per_step"], theirs["decode"]["kv_bytes_per_step"])
        table = run("bench", "--model", MODEL, *arguments)
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertEqual(sum(line.count("%") == 2 for line in table.stdout.splitlines()), 8)

    def test_speculation_does_not_change_the_output(self):
        tokens = pathlib.Path(self.folder.name) / "repeated.json"
        tokens.write_text(json.dumps(list(range(40, 60)) * 8))
        arguments = ["generate", "--model", MODEL, "--tokens-file", str(tokens), "--max-tokens", "100", "--json", "-q"]
        # A bias that keeps the output to two tokens makes it repeat itself.
        arguments += ["--temperature", "0.8", "--logit-bias", "7=100", "--logit-bias", "9=100"]
        documents = [json.loads(run(*arguments, "--speculate", n).stdout) for n in ("off", "1", "8")]
        self.assertEqual(set(documents[0]["ids"]) - {7, 9}, set())
        for document in documents:
            timings = document["timings"]
            self.assertEqual(document["ids"], documents[0]["ids"])
            self.assertEqual(timings["decode_passes"] + timings["accepted_tokens"], 99)
        self.assertEqual(documents[0]["timings"]["proposed_tokens"], 0)
        self.assertGreater(documents[2]["timings"]["proposed_tokens"], 0)

    def test_generate_keeps_to_a_grammar(self):
        grammars = pathlib.Path(self.folder.name)
        (grammars / "g.gbnf").write_text('root ::= "x" [0-9] [0-9]\n')
        (grammars / "g.lark").write_text('start: "y" ("a"|"b")\n')
        schema = '{"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":99}},"required":["n"],"additionalProperties":false}'
        arguments = ["generate", "--model", MODEL, "--tokens-file", self.tokens_file("s7"), "--max-tokens", "60", "--json", "-q"]

        def text(*flags):
            result = run(*arguments, *flags)
            self.assertEqual(result.returncode, 0, result.stderr)
            document = json.loads(result.stdout)
            self.assertEqual(document["stop_reason"], "grammar_end")
            return document["text"]

        for seed in range(4):
            document = json.loads(text("--json-schema", schema, "--seed", str(seed)))
            self.assertEqual(list(document), ["n"])
            self.assertIn(document["n"], range(100))
        self.assertRegex(text("--regex", "(cat|dog){2}"), "^(cat|dog){2}$")
        self.assertRegex(text("--grammar", str(grammars / "g.gbnf")), "^x[0-9]{2}$")
        self.assertRegex(text("--grammar", str(grammars / "g.lark")), "^y[ab]$")

    def test_a_bad_grammar_is_refused_before_the_model_is_opened(self):
        arguments = ["generate", "--model", "/nonexistent", "--tokens-file", self.tokens_file("s7")]
        for flags, message in (
            (["--json-schema", '{"uniqueItems":true}'], "--json-schema: schema #/uniqueItems"),
            (["--json-schema", "{"], "--json-schema: the schema"),
            (["--regex", "(a"], "--regex: regular expression, byte 2"),
            (["--grammar", "/nonexistent.gbnf"], "--grammar: /nonexistent.gbnf"),
        ):
            result = run(*arguments, *flags)
            self.assertEqual(result.returncode, 1)
            self.assertIn(message, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertEqual(run(*arguments, "--regex", "a", "--json-schema", "true").returncode, 2)

    def test_generate_a_turn_with_tools(self):
        folder = pathlib.Path(self.folder.name)
        (folder / "tool.json").write_text('{"type":"function","name":"f","strict":true,"parameters":{"enum":[{"a":1}]}}')
        (folder / "prompt.json").write_text("[200006, 173781]")
        arguments = ["generate", "--max-tokens", "60", "-q", "--json", "--tool", str(folder / "tool.json")]
        arguments += ["--tool-choice", "required", "--reasoning-budget", "0"]
        document = json.loads(run(*arguments, "--model", "random", "--tokens-file", str(folder / "prompt.json")).stdout)
        self.assertEqual(document["stop_reason"], "grammar_end")
        self.assertRegex(document["text"], r"functions\.f.*<\|message\|>\{\"a\": ?1\}<\|call\|>$")
        # A model without the markers cannot write a turn.
        result = run(*arguments, "--model", MODEL, "--tokens-file", self.tokens_file("s7"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("640", result.stderr)

    def test_generate_logprobs_among_all_or_among_the_allowed(self):
        arguments = ["generate", "--model", MODEL, "--tokens-file", self.tokens_file("s7"), "--max-tokens", "3", "--json", "-q"]
        arguments += ["--regex", "[ab]{3}", "--logprobs", "640"]
        for flags, count in (([], 640), (["--masked-logprobs"], None)):
            document = json.loads(run(*arguments, *flags).stdout)
            self.assertEqual([t["id"] for t in document["logprobs"]], document["ids"])
            for token in document["logprobs"]:
                self.assertAlmostEqual(sum(math.exp(t["logprob"]) for t in token["top"]), 1, places=4)
                self.assertIn({"id": token["id"], "logprob": token["logprob"]}, token["top"])
                self.assertTrue(len(token["top"]) == 640 if count else len(token["top"]) < 20)

    def test_generate_profile(self):
        arguments = ["generate", "--model", MODEL, "--tokens-file", self.tokens_file("s7"), "--max-tokens", "4", "-q"]
        document = json.loads(run(*arguments, "--profile", "--json").stdout)
        self.assertEqual(document["profile"]["prefill"]["rows"], 7)
        self.assertGreaterEqual(document["profile"]["decode"]["rows"], 3)
        text = run(*arguments, "--profile")
        self.assertEqual(len(text.stdout.split()), 4)
        for word in ("qkv", "attention", "gate_up", "waiting", "GB/s"):
            self.assertIn(word, text.stderr)

    def test_sampling_flags_are_checked(self):
        tokens = self.tokens_file("s7")
        for name, flags in {
            "--speculate": ["--speculate", "many"],
            "--logit-bias 5": ["--logit-bias", "5"],
            "-100 to 100": ["--logit-bias", "5=101"],
        }.items():
            result = run("generate", "--model", MODEL, "--tokens-file", tokens, *flags, "-q")
            self.assertEqual(result.returncode, 2, flags)
            self.assertIn(name, result.stderr)
        result = run("generate", "--model", MODEL, "--tokens-file", tokens, "--logit-bias", "640=1", "-q")
        self.assertEqual(result.returncode, 1)
        self.assertIn("640", result.stderr)

    def test_plan_adds_up(self):
        result = run("plan", "--model", MODEL, "--context", "4096", "--sequences", "2", "--json")
        document = json.loads(result.stdout)
        self.assertEqual(document["total_bytes"], sum(document["bytes"].values()))
        # Two full layers of 2 kv heads: 2 sequences * 4096 positions * 2 * 2 * 64 * 2 bytes each.
        self.assertGreaterEqual(document["bytes"]["kv_cache"], 2 * 2 * 4096 * 2 * 2 * 64 * 2)
        self.assertTrue(document["fits"])
        self.assertGreater(document["most_sequences"], 2)

    def test_a_gpu_can_be_planned_for_without_having_one(self):
        def plan(memory):
            flags = ["--device", "cuda", "--gpu-memory", memory, "--chunk", "64", "--context", "256"]
            result = run("plan", "--model", MODEL, *flags, "--json")
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)

        roomy, tight, hopeless = plan("1GB"), plan("3800KB"), plan("100KB")
        self.assertEqual((roomy["host_layers"], roomy["fits"]), (0, True))
        self.assertTrue(0 < tight["host_layers"] and tight["fits"], tight)
        self.assertLessEqual(tight["gpu_bytes"], 3800 << 10)
        # What leaves the GPU is on the host.
        self.assertGreaterEqual(tight["host_bytes"] - roomy["host_bytes"], roomy["gpu_bytes"] - tight["gpu_bytes"])
        self.assertFalse(hopeless["fits"])

    def test_released_shapes_are_planned_without_their_files(self):
        def plan(shape, memory, *flags):
            result = run("plan", "--like", shape, "--device", "cuda", "--gpu-memory", memory, "--context", "32768",
                         "--json", *flags)
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)

        large = plan("120b", str(80 * 10**9), "--sequences", "8")
        self.assertLessEqual(large["gpu_bytes"], 80 * 10**9)
        self.assertEqual(large["host_layers"], 0)
        # 36 layers of 128 experts: gate, up and down of 2880 * 2880 at 17 bytes for 32 values.
        self.assertGreaterEqual(large["bytes"]["experts"], 36 * 128 * 3 * 2880 * 2880 * 17 // 32)
        small = plan("20b", str(16 * 10**9))
        self.assertLessEqual(small["gpu_bytes"], 16 * 10**9)
        self.assertEqual(small["host_layers"], 0)
        unknown = run("plan", "--like", "7b")
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("20b, 120b", unknown.stderr)

    def test_verify_passes(self):
        result = run("verify", "--model", MODEL, "--json", "-q")
        document = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertTrue(document["passed"])
        self.assertEqual([p["position"] for p in document["probes"]], [0, 127, 4095, 32767])

    def test_all_forms_give_the_same_logits_bit_for_bit(self):
        tokens = self.tokens_file("s7", "r244")
        out = self.folder.name + "/o.npy"
        models = {"hf": MODEL}
        for form, name, dense in [("original", "original", []), ("gguf", "micro.gguf", ["--dense", "bf16"])]:
            models[form] = f"{self.folder.name}/{name}"
            result = run("convert", "--model", MODEL, "--to", form, "--out", models[form], *dense)
            self.assertEqual(result.returncode, 0, result.stderr)
        for flags in [[], ["--exact"], ["--dense", "int8"]]:
            bits = {}
            for form, model in models.items():
                result = run("logits", "--model", model, "--tokens-file", tokens, "--out", out, "-q", *flags)
                self.assertEqual(result.returncode, 0, result.stderr)
                bits[form] = [(pathlib.Path(self.folder.name) / f"o.{i}.npy").read_bytes() for i in range(2)]
            self.assertEqual(bits["hf"], bits["original"], flags)
            self.assertEqual(bits["hf"], bits["gguf"], flags)

    def test_tokenize_answers_every_line_and_fails_after_a_bad_one(self):
        lines = ['{"text":"a <|end|> b"}', '{"text":"<|end|>","special":true}', "[1,", '{"ids":[5,-1]}', '{"ids":[64]}']
        result = run("tokenize", stdin="\n".join(lines))
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(result.returncode, 1)
        self.assertEqual(len(answers), len(lines))
        self.assertNotIn(200007, answers[0]["ids"])
        self.assertEqual(answers[1], {"ids": [200007]})
        self.assertIn("error", answers[2])
        self.assertIn("-1", answers[3]["error"])
        self.assertEqual(answers[4], {"text": "a"})
        self.assertEqual(run("tokenize", stdin='{"text":""}\n').returncode, 0)

    def complete(self, *words):
        """What bash offers for the last of `words`."""
        script = (
            'source <("$1" completion bash); shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gptoss; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        result = subprocess.run(["bash", "-c", script, "-", GPTOSS, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.split()

    def test_completion_offers_commands_flags_and_choices(self):
        self.assertEqual(self.complete("gptoss", "tok"), ["tokenize"])
        self.assertIn("--temperature", self.complete("gptoss", "run", "--te"))
        self.assertEqual(self.complete("gptoss", "run", "--effort", "h"), ["high"])
        self.assertEqual(self.complete("gptoss", "run", "file"), [])
        for shell in ("zsh", "fish"):
            result = run("completion", shell)
            self.assertEqual(result.returncode, 0)
            self.assertIn("tokenize", result.stdout)
        self.assertEqual(run("completion", "cmd").returncode, 2)

    def test_info(self):
        document = json.loads(run("info", "--json").stdout)
        self.assertIn(document["cpu"]["chosen"], [t["name"] for t in document["cpu"]["targets"] if t["available"]])

    def test_grammar_check(self):
        def file(name, text):
            path = pathlib.Path(self.folder.name) / name
            path.write_text(text)
            return str(path)

        schema = file("s.json", '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')
        whole, spaced = file("whole.json", '{"a":1}\n'), file("spaced.json", '{ "a" : 1 }')
        sums = file("sums.gbnf", 'root ::= [0-9] ("+" [0-9])*\n')
        for word, arguments in [
            ("supported", [schema]),
            ("in the language", [schema, whole]),
            ("not written as", [schema, spaced]),
            ("in the language", ["--grammar", sums, file("sum.txt", "1+2")]),
        ]:
            result = run("grammar", "check", *arguments)
            self.assertEqual(result.returncode, 0, (arguments, result.stderr))
            self.assertIn(word, result.stdout)
        request = json.dumps({"schema": {"type": "integer"}, "documents": [1, "x"]})
        batch = run("grammar", "check", "--batch", stdin=request + "\n")
        self.assertEqual(json.loads(batch.stdout), {"supported": True, "accepted": [True, False]})
        broken = file("broken.json", '{"type":')
        for code, words, arguments in [
            (1, ["not valid JSON"], ["{bad"]),
            (1, ["broken.json", "not valid JSON"], [schema, broken]),
            (1, ["not.json", "#/not", "keyword not"], [file("not.json", '{"not":{}}')]),
            (1, ["/nonexistent"], ["/nonexistent"]),
            (1, ["/nonexistent"], [schema, "/nonexistent"]),
            (1, ["wrong.json", "after 5 bytes"], [schema, file("wrong.json", '{"a":"x"}')]),
            (1, ["short.txt", "too early"], ["--grammar", sums, file("short.txt", "1+")]),
            (1, ["undefined.gbnf", "line 1"], ["--grammar", file("undefined.gbnf", "root ::= x\n")]),
            (1, ["look-around"], ["--regex", "(?=a)"]),
            (2, ["SCHEMA"], []),
            (2, [schema], ["--regex", "a", schema, whole]),
            (2, ["--regex", "--draft7"], ["--regex", "a", "--draft7"]),
            (2, ["--batch", schema], ["--batch", schema]),
        ]:
            result = run("grammar", "check", *arguments)
            self.assertEqual(result.returncode, code, (arguments, result.stderr))
            for word in words:
                self.assertIn(word, result.stderr)

    def test_errors_name_what_is_at_fault(self):
        tokens = self.tokens_file("s7")
        bad = self.folder.name + "/bad.json"
        pathlib.Path(bad).write_text("[1, 2\n")
        cases = [
            (1, "/nonexistent", ["logits", "--model", "/nonexistent", "--tokens-file", tokens, "--out", "/dev/null"]),
            (1, "bad.json", ["logits", "--model", MODEL, "--tokens-file", bad, "--out", "/dev/null"]),
            (2, "--positions", ["logits", "--model", MODEL, "--tokens-file", tokens, "--positions", "x", "--out", "o"]),
            (2, "--frobnicate", ["info", "--frobnicate"]),
            (1, "avx9", ["generate", "--model", MODEL, "--tokens-file", tokens, "--cpu", "avx9"]),
        ]
        if not json.loads(run("info", "--json").stdout)["gpus"]:
            cases.append((1, "cuda", ["generate", "--model", MODEL, "--tokens-file", tokens, "--device", "cuda"]))
        for code, word, arguments in cases:
            result = run(*arguments)
            self.assertEqual(result.returncode, code, (arguments, result.stderr))
            self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
