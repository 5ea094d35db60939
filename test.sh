#!/usr/bin/env bash
# Sets up, builds, and runs every test that needs no GPU. Ends with "N passed, N failed".
# Steps can be chosen: ./test.sh checks release oracles aarch64 asan tsan fuzz
set -uo pipefail
cd "$(dirname "$0")"
steps=("$@")
if ((${#steps[@]} == 0)); then steps=(checks release oracles aarch64 asan tsan fuzz); fi
jobs=$(nproc)
# A clone in another place finds what an earlier build compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

note() { printf '\n== %s\n' "$*"; }
# One check that passes or fails as a whole: check NAME COMMAND…
check() {
  local name=$1
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$name"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$name"
    tail -n 60 "$log"
  fi
}
build() {  # build PRESET [TARGET…]
  local preset=$1
  shift
  cmake --preset "$preset" >"$log" 2>&1 || { cat "$log"; return 1; }
  cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} >"$log" 2>&1 || { grep -E 'error|FAILED|warning' "$log" | head -n 40; tail -n 20 "$log"; return 1; }
}
# Runs CTest and adds the single tests of its binaries to the counts: ctests PRESET CTEST-ARGUMENTS…
ctests() {
  local preset=$1
  shift
  local status=0
  ctest --test-dir "build/$preset" -V -j "$jobs" --timeout 900 "$@" >"$log" 2>&1 || status=$?
  local ok bad entries
  ok=$(grep -cE '^[0-9]+: \[       OK \]' "$log")
  bad=$(grep -cE '^[0-9]+: \[  FAILED  \] [^ ]+\.[^ ]+.*\(.*ms\)$' "$log")
  # Scripts and crashed binaries count as one each.
  entries=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*(Failed|Exception|Timeout|Not Run)' "$log")
  if ((entries > bad)); then bad=$entries; fi
  # Entries that are scripts have no tests of their own to count.
  ok=$((ok + $(grep -E '^ *[0-9]+/[0-9]+ Test .*Passed' "$log" | grep -cvE ': [a-z0-9_]+_test(_[0-9]+)? ')))
  if ((status != 0 && bad == 0)); then bad=1; fi
  passed=$((passed + ok))
  failed=$((failed + bad))
  printf '%s: %d passed, %d failed\n' "$preset" "$ok" "$bad"
  grep -E 'SKIPPED' "$log" | sed -E 's/^[0-9]+: //' | sort -u | head -n 20
  if ((status != 0)); then grep -E 'FAILED|Failure|error|ERROR|Test .*\*\*\*' -A 8 "$log" | head -n 120; fi
}

scripts/setup.sh --test || exit 1
for step in "${steps[@]}"; do
  case "$step" in
    checks)
      note "checks"
      check "layering" python3 scripts/check_layers.py
      check "documents name files that exist" python3 scripts/check_docs.py
      check "format" sh -c "git ls-files '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror"
      ;;
    release)
      note "release build and all tests"
      if build release; then ctests release; else failed=$((failed + 1)); fi
      ;;
    oracles)
      note "independent implementations"
      check "install" npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/oracles
      check "tokenizer against tiktoken and gpt-tokenizer" node tests/oracles/tokenizer.mjs build/release/gptoss
      check "install" npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/grammar
      check "schemas against the JSON Schema test suite and ajv" node tests/grammar/schema_suite.mjs build/release/gptoss
      check "random turns and documents against ajv" node tests/grammar/random_outputs.mjs build/release/tests/grammar/random_outputs --schemas 110 --seeds 1 --turns 100
      check "install" npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/server
      check "Chat completions against openai, ai and @openai/agents" node tests/server/chat.mjs build/release/gptoss
      check "Responses API against openai and @openai/agents" node tests/server/responses.mjs build/release/gptoss
      check "Messages API against @anthropic-ai/sdk" node tests/server/anthropic.mjs build/release/gptoss
      check "Operation of the server" node tests/server/operation.mjs build/release/gptoss
      check "Ollama API against ollama" node tests/server/ollama.mjs build/release/gptoss
      ;;
    aarch64)
      note "ops on 64-bit Arm, under emulation"
      if scripts/setup.sh --aarch64 && build aarch64; then ctests aarch64; else failed=$((failed + 1)); fi
      ;;
    asan)
      note "address and undefined-behaviour sanitizers"
      if build asan short_unit_tests fuzzers; then ctests asan -L unit -LE slow; else failed=$((failed + 1)); fi
      ;;
    tsan)
      note "thread sanitizer"
      # The pool, forward passes of several sequences, the engine, HTTP, and the whole server with many clients.
      export GTEST_FILTER='ThreadPool.*:ScratchArena.*:*SequencesDoNotDisturbEachOther/avx2:*SequencesDoNotDisturbEachOther/neon:HttpServerTest.*:EngineTest.ThreadsMayDoAsTheyLike:WholeServerTest.*'
      binaries=(parallel_test cache_test engine_test server_http_test server_test)
      if build tsan "${binaries[@]}"; then ctests tsan -R "^($(IFS='|'; echo "${binaries[*]}"))\$"; else failed=$((failed + 1)); fi
      unset GTEST_FILTER
      ;;
    fuzz)
      note "fuzzers, a few seconds each"
      # Of the build of `asan`, so that the libraries compile once; the preset `fuzz` is for long runs.
      if build asan fuzzers; then
        for fuzzer in build/asan/src/*/*_fuzz; do
          check "$(basename "$fuzzer")" "$fuzzer" -max_total_time=5 -rss_limit_mb=2048 -timeout=10 -print_final_stats=0
        done
      else
        failed=$((failed + 1))
      fi
      ;;
    *)
      echo "test.sh: unknown step $step" >&2
      exit 2
      ;;
  esac
done
printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
