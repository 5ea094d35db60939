#!/usr/bin/env bash
# Trains the embedded model from nothing: data, tokenizer, weights, measured accuracy. About two hours on two free
# cores. Stopped at any point (also by kill -9), the same command goes on where it was.
#
#   training/nano/recipe.sh [OUT [MODEL]]    OUT: folder of the run (default build/nano_run), MODEL: the exported model
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root/build/nano_run}
model=${2:-$out/model}
gptoss=${GPTOSS:-$root/build/release/gptoss}
conversations=320000
mkdir -p "$out"

make() {  # make FILE COMMAND…: the file appears whole or not at all
  local file=$1
  shift
  if [[ ! -f $file ]]; then "$@" --out "$file.part" && mv "$file.part" "$file"; fi
}
make "$out/train.jsonl" python3 "$here/generate.py" train --count "$conversations" --seed 1
make "$out/eval.jsonl" python3 "$here/generate.py" held-out --count 300 --seed 3
if [[ ! -f $out/tokenizer.json ]]; then
  head -n 40000 "$out/train.jsonl" >"$out/sample.jsonl"
  make "$out/tokenizer.json" python3 "$here/train_tokenizer.py" --gptoss "$gptoss" --data "$out/sample.jsonl"
fi
if [[ ! -d $model ]]; then  # begins, or goes on from the newest state
  resume=()
  if compgen -G "$out/states/step-*" >/dev/null; then resume=(--resume); fi
  "$gptoss" train --data "$out/train.jsonl" --eval-data "$out/eval.jsonl" --tokenizer "$out/tokenizer.json" \
    --config "$here/training.json" --from-scratch "$here/config.json" --out "$out/states" --export "$model" \
    "${resume[@]}"
fi
for temperature in 0 1; do
  "$gptoss" eval --model "$model" --suite "$root/evals/nano.jsonl" --temperature "$temperature" --json --quiet \
    >"$out/eval-temperature-$temperature.json"
done
python3 "$here/model_card.py" "$model" "$out"/eval-temperature-*.json
