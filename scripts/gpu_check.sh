#!/usr/bin/env bash
# Everything that needs a GPU, in one go: builds, tests the ops, verifies and times generated models, one report.
#   scripts/gpu_check.sh [REPORT]       build here and check (default report: build/gpu_report.txt)
#   scripts/gpu_check.sh --bundle       only build, into build/gpu_bundle with the libraries that the programs need
#   scripts/gpu_check.sh --from-bundle [REPORT]   check with the programs of build/gpu_bundle
# Models are written to $GPTOSS_SCRATCH (default: the system's folder for temporary files) and removed.
set -uo pipefail
cd "$(dirname "$0")/.."
bundle=build/gpu_bundle
mode=check
case "${1:-}" in
  --bundle | --from-bundle)
    mode=${1#--}
    shift
    ;;
esac
report=${1:-build/gpu_report.txt}

build() {
  scripts/setup.sh --test || return
  cmake --preset release -B build/gpu -DGPTOSS_CUDA=ON && cmake --build build/gpu --target gptoss cuda_test gpu_logits_test
}

if [[ $mode == bundle ]]; then
  build || exit 1
  rm -rf "$bundle"
  mkdir -p "$bundle/lib"
  for program in build/gpu/gptoss build/gpu/src/backends/cuda/cuda_test build/gpu/tests/gpu_logits_test; do
    cp "$program" "$bundle/" && strip "$bundle/$(basename "$program")"
    # Not the C library's own: they belong to the machine.
    ldd "$program" | awk '$3 ~ /^\// {print $3}' | grep -vE '/(libc|libm|libpthread|libdl|librt|ld-linux[^/]*)\.so' |
      xargs -r -I{} cp -n {} "$bundle/lib/"
  done
  du -sh "$bundle"
  exit 0
fi

mkdir -p "$(dirname "$report")"
exec > >(tee "$report") 2>&1
failed=0
step() {  # step NAME COMMAND…
  printf '\n== %s\n' "$1"
  shift
  local start=$SECONDS
  "$@" || { echo "FAILED"; failed=$((failed + 1)); }
  echo "-- $((SECONDS - start)) s"
}

if [[ $mode == from-bundle ]]; then
  gptoss=$bundle/gptoss cuda_test=$bundle/cuda_test logits_test=$bundle/gpu_logits_test
  export LD_LIBRARY_PATH=$PWD/$bundle/lib
else
  step "build" build
  gptoss=build/gpu/gptoss cuda_test=build/gpu/src/backends/cuda/cuda_test
  logits_test=build/gpu/tests/gpu_logits_test
fi
scratch=$(mktemp -d "${GPTOSS_SCRATCH:-${TMPDIR:-/tmp}}/gptoss-gpu.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

step "the GPU" nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv
step "tests of ops" "$cuda_test" --gtest_brief=1
step "tests of sampling" "$logits_test" --gtest_brief=1
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$cuda_test" --gtest_brief=1 \
      --gtest_filter='*GoldenTest*:*Experts*:*QkvRotates*:*ReleasedBlocks*:*AttentionTest.IsTheReference*:*ManySequences*'
    step "$tool of sampling" compute-sanitizer --tool "$tool" --error-exitcode 9 "$logits_test" --gtest_brief=1
  done
fi

model() {  # model NAME SYNTH-ARGUMENTS…: verified, run, timed, removed
  local name=$1 file=$scratch/$1.gguf
  shift
  step "$name: write" "$gptoss" synth "$@" --format gguf --out "$file"
  step "$name: verify" "$gptoss" verify --device cuda --model "$file" --quiet
  printf "[1, 2, 3, 4, 5]" >"$scratch/tokens.json"
  step "$name: generate" "$gptoss" generate --device cuda --model "$file" --tokens-file "$scratch/tokens.json" --temperature 0 --quiet
  step "$name: bench" "$gptoss" bench --device cuda --model "$file" --prompt 512,2048 --context 0,8192 --batch 1,8 --gen 32 --quiet --profile
  if [[ $name == 20b ]]; then shared "$file"; fi
  rm -f "$file"
}
shared() {  # shared MODEL: on a GPU with less memory, most experts stay on the host
  step "8 GB: verify" "$gptoss" verify --device cuda --gpu-memory 8GB --model "$1" --quiet
  step "8 GB: bench" "$gptoss" bench --device cuda --gpu-memory 8GB --model "$1" --prompt 512 --gen 16 --profile
}
model small --like 20b --layers 2
model 20b --like 20b
# One layer in six of the larger model: what its experts cost, in the time that a loan of a machine leaves.
model 120b-6-layers --like 120b --layers 6

printf '\n%d steps failed\n' "$failed"
exit $((failed > 0))
