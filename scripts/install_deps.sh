#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing, and does nothing when all are there.
#   scripts/install_deps.sh [run|test]      run: to build the program (default); test: also to build and run all tests
# Works as root or through sudo. Without either it changes nothing: missing packages are named and the status is 1.
set -euo pipefail

# These names are the same on Debian 12 and Ubuntu 24.04. ca-certificates: for what the server and pip fetch by https.
run_packages=(ca-certificates g++ cmake ninja-build libfmt-dev libsimdjson-dev libcli11-dev zlib1g-dev
              libspng-dev libjpeg-dev libwebp-dev libgif-dev libedit-dev libssl-dev libcurl4-openssl-dev)
# Boost's headers (1.81 or newer, for the server) have their version in the name: Debian 12, Ubuntu 24.04, later ones.
boost_packages=(libboost1.81-dev libboost1.83-dev libboost1.88-dev libboost1.90-dev)
# python3 runs the source checks and the clients, clang with its runtime builds the fuzz targets.
test_packages=(python3 python3-venv ccache libgtest-dev clang libclang-rt-dev)
# A browser for the tests of the web page, where it is a package (Ubuntu's is a snap).
browser_packages=(chromium chromium-driver)
# Libraries that read untrusted pictures: security updates are taken when we are root anyway.
image_runtimes='^(libspng0|libjpeg62-turbo|libjpeg-turbo8|libwebp7|libwebpdemux2|libgif7)$'

say() { printf '%s\n' "$*" >&2; }

case "${1:-run}" in
  run) wanted=("${run_packages[@]}") ;;
  test) wanted=("${run_packages[@]}" "${test_packages[@]}") ;;
  *) say "usage: scripts/install_deps.sh [run|test]"; exit 2 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  say "note: no apt-get here, so packages are not checked. Needed (names as on Debian): ${wanted[*]} libboost-dev (1.81 or newer)"
  exit 0
fi

missing_of() {  # the packages among the arguments that are not installed
  local package
  for package in "$@"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then echo "$package"; fi
  done
}

# The first of the arguments that is installed, else the first that the package lists have, else the first.
pick_of() {
  local package
  for package in "$@"; do
    if [ -z "$(missing_of "$package")" ]; then echo "$package"; return; fi
  done
  for package in "$@"; do
    if apt-cache show "$package" >/dev/null 2>&1; then echo "$package"; return; fi
  done
  echo "$1"
}

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
apt() {
  ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >&2
}

if [ "${1:-run}" = test ] && ! grep -qi '^ID=ubuntu' /etc/os-release; then wanted+=("${browser_packages[@]}"); fi
wanted+=("$(pick_of "${boost_packages[@]}")")
mapfile -t missing < <(missing_of "${wanted[@]}")
if [ "${#missing[@]}" -eq 0 ]; then exit 0; fi

if [ "${#as_root[@]}" -ne 0 ]; then
  # sudo may ask for a password only where somebody can type one.
  if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
    say "error: packages are missing and need root; run once as root: apt-get install ${missing[*]}"
    exit 1
  fi
  if [ -t 0 ]; then sudo -v || { say "error: packages are missing and sudo was refused: ${missing[*]}"; exit 1; }; fi
fi

say "installing packages: ${missing[*]}"
apt update || { say "error: apt-get update failed; packages missing: ${missing[*]}"; exit 1; }
# A bare machine had no lists to choose from before.
wanted[-1]=$(pick_of "${boost_packages[@]}")
mapfile -t missing < <(missing_of "${wanted[@]}")
apt install --no-install-recommends "${missing[@]}" || { say "error: apt-get could not install: ${missing[*]}"; exit 1; }

# The lists are fresh now. An upgrade that fails leaves a working older library, so it is a warning only.
mapfile -t runtimes < <(dpkg-query -W -f '${Package}\n' | grep -E "$image_runtimes" || true)
if [ "${#runtimes[@]}" -ne 0 ]; then
  apt install --no-install-recommends --only-upgrade "${runtimes[@]}" || say "warning: image libraries could not be upgraded"
fi

mapfile -t missing < <(missing_of "${wanted[@]}")
if [ "${#missing[@]}" -ne 0 ]; then say "error: still missing after installation: ${missing[*]}"; exit 1; fi
