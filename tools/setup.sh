#!/usr/bin/env bash
# Installs what building and testing Penstock needs, on Debian 12. Safe to run again: it looks first, and
# with nothing missing it takes well under a second. Starts and enables no service.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the build needs.
packages=(
  clang-19 lld-19 llvm-19 clang-tidy-19 clang-format-19 libclang-rt-19-dev
  cmake ninja-build ccache pkg-config make git
  libsimdjson-dev libyaml-cpp-dev libcli11-dev libfmt-dev libsodium-dev libssl-dev
  libsqlite3-dev libpq-dev libhiredis-dev
  libhowardhinnant-date-dev # IANA time zones; libstdc++ 12 has no std::chrono::zoned_time
  libgtest-dev libgmock-dev libbenchmark-dev
)
# What is too old in Debian 12, or not in it: from its backports.
backports=(libboost1.83-dev libboost-json1.83-dev libboost-url1.83-dev opentelemetry-cpp-dev)
# What tests, checks and the benchmark run: proxies to compare with, promtool, the shell's linter, servers of their own.
packages+=(nginx-light haproxy wrk prometheus shellcheck redis-server postgresql-15)
packages+=(python3 python3-venv tzdata ca-certificates curl openssl iproute2 util-linux procps)
# These come with a service that Debian would start at boot; here they are only programs.
services=(nginx haproxy prometheus redis-server postgresql)

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

unsupported() {
  fail "$1" \
    "only Debian 12 (bookworm) on a machine with apt is set up by this script. Elsewhere, install these yourself" \
    "(clang 19 and Boost 1.83 or newer of each kind), then make .venv from requirements-dev.txt:" \
    "  ${packages[*]} ${backports[*]} nodejs npm" \
    "and run the rest with PENSTOCK_SKIP_SETUP=1 make ..."
}

missing_packages() {
  local installed
  # dpkg-query fails where it does not know one of the names, and still lists the others.
  installed=$({ dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } |
    sed -n 's/^installed //p')
  comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$installed")
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "installing packages needs root: run 'make setup' as root once, or install sudo"
  fi
}

apt() {
  # Waits for another apt rather than failing; asks nothing.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" </dev/null >>"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    fail "apt-get $1 failed; the whole output is in $log"
  }
}

add_backports() {
  local target=/etc/apt/sources.list.d/penstock-backports.list mirror keyring
  # shellcheck disable=SC2016 # apt's own placeholders, here and below
  if apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -x bookworm-backports >/dev/null; then
    return
  fi
  # The same mirror as the machine's own; only the suite is new.
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" { print $2; exit }')
  [ -n "$mirror" ] || fail "found no 'bookworm' entry in the machine's apt sources; add bookworm-backports by hand"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  say "adding bookworm-backports to the apt sources"
  printf 'deb %s%s bookworm-backports main\n' "$([ -r $keyring ] && printf '[signed-by=%s] ' $keyring)" "$mirror" |
    as_root tee "$target" >/dev/null
}

# While packages are installed, this file keeps Debian's scripts from starting what they install.
guard=/usr/sbin/policy-rc.d
guard_is_ours=false
guard_services() {
  if [ ! -e "$guard" ] || grep -q 'penstock setup' "$guard"; then # the second: left by a run that was killed
    guard_is_ours=true
    printf '#!/bin/sh\n# penstock setup: removed when it ends\nexit 101\n' | as_root tee "$guard" >/dev/null
    as_root chmod 755 "$guard"
  fi
}
unguard_services() {
  if $guard_is_ours; then as_root rm -f "$guard"; fi
  guard_is_ours=false
}

install_packages() {
  local missing=("$@") service
  log=$(mktemp /tmp/penstock-setup-XXXXXX.log)
  say "installing ${#missing[@]} packages: ${missing[*]}"
  trap unguard_services EXIT
  trap 'exit 130' INT TERM
  guard_services
  add_backports
  apt update
  apt install --no-install-recommends "${missing[@]}"
  for service in "${services[@]}"; do
    case " ${missing[*]} " in
    *" $service "* | *" $service-"*)
      as_root update-rc.d "$service" disable >>"$log" 2>&1 || true # some images have no init at all
      ;;
    esac
  done
  unguard_services
  rm -f "$log"
}

# The path is in the stamp since a venv does not survive being moved.
venv_stamp() { printf '%s %s' "$(cat requirements-dev.txt tools/setup.sh | sha256sum | cut -d' ' -f1)" "$PWD"; }

venv_is_current() { [ -x .venv/bin/python ] && [ "$(cat .venv/.penstock-setup 2>/dev/null)" = "$(venv_stamp)" ]; }

make_venv() {
  say "making .venv from requirements-dev.txt"
  /usr/bin/python3 -m venv --clear .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-input -r requirements-dev.txt </dev/null
  venv_stamp >.venv/.penstock-setup
}

# shellcheck source=/dev/null
id=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${VERSION_CODENAME:-}") || id=unknown
[ "$id" = "debian bookworm" ] || unsupported "this is '$id', not Debian 12"
command -v apt-get >/dev/null || unsupported "there is no apt-get here"

# A Node from elsewhere, newer than Debian's, is as good.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)

wanted=$(missing_packages "${packages[@]}" "${backports[@]}")
if [ -n "$wanted" ]; then
  mapfile -t wanted_list <<<"$wanted"
  install_packages "${wanted_list[@]}"
fi
new_venv=false
venv_is_current || new_venv=true
if $new_venv; then make_venv; fi
if [ -n "$wanted" ] || $new_venv; then
  say "ready"
elif [ "${1:-}" = --verbose ]; then
  say "nothing to do"
fi
