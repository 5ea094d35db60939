#!/usr/bin/env bash
# Installs what is missing, builds a release, and runs `gptoss run` with the given arguments.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")"
build=$PWD/build/release

if [[ ! -x $build/gptoss ]]; then scripts/setup.sh; fi
if [[ ! -f $build/build.ninja ]]; then
  echo "building gptoss: this takes some minutes the first time" >&2
  cmake --preset release -DGPTOSS_BUILD_TESTS=OFF >"${TMPDIR:-/tmp}/gptoss-configure.$$" 2>&1 || {
    cat "${TMPDIR:-/tmp}/gptoss-configure.$$" >&2
    exit 1
  }
  rm -f "${TMPDIR:-/tmp}/gptoss-configure.$$"
fi
# Builds only what changed; prints only when something fails.
if ! output=$(cmake --build "$build" --target gptoss 2>&1); then
  printf '%s\n' "$output" >&2
  exit 1
fi
cd "$caller"
exec "$build/gptoss" run "$@"
