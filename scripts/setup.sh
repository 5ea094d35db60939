#!/usr/bin/env bash
# Installs what is missing from Debian's packages: what the build needs, and with --test what the tests need too.
# --aarch64 instead: what the cross build for 64-bit Arm needs, with that architecture's libraries beside the machine's.
# Runs as root or through sudo; installs nothing when nothing is missing.
set -euo pipefail

packages=(
  build-essential cmake ninja-build ccache pkg-config
  libboost1.81-dev libcli11-dev libcurl4-openssl-dev libedit-dev libfmt-dev libhwy-dev libsimdjson-dev libsqlite3-dev
  libssl-dev libutf8proc-dev libzstd-dev nlohmann-json3-dev
)
if [[ "${1:-}" == "--test" ]]; then
  # libtest-json-schema-acceptance-perl has the official JSON Schema Test Suite of every draft.
  packages+=(clang clang-format libclang-rt-dev libgtest-dev libgmock-dev libtest-json-schema-acceptance-perl nodejs npm python3
             python3-numpy)
fi
if [[ "${1:-}" == "--aarch64" ]]; then
  packages=(cmake ninja-build g++-aarch64-linux-gnu qemu-user-static
            libhwy-dev:arm64 libgtest-dev:arm64 libgmock-dev:arm64)
fi

missing=()
for package in "${packages[@]}"; do
  # A tool that is there in another way (a newer node, say) need not come from the package.
  case "$package" in
    nodejs) command -v node >/dev/null && continue ;;
    npm) command -v npm >/dev/null && continue ;;
  esac
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if ((${#missing[@]} == 0)); then exit 0; fi

if ! command -v apt-get >/dev/null; then
  echo "setup: these Debian packages are needed and apt-get is not here: ${missing[*]}" >&2
  exit 1
fi
sudo=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
if [[ "${missing[*]}" == *:arm64* ]]; then "${sudo[@]}" dpkg --add-architecture arm64; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
         apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get failed; its last lines are above" >&2
  exit 1
fi
