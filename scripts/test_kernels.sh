#!/usr/bin/env bash
# Compiles the C++ tests of the kernels, which need no torch, and runs them:
#   native      as lowbit is compiled; every core that this processor supports must have run,
#               and no instruction set's file may give away a symbol that others could link to
#   sanitizers  address and undefined behaviour
#   arm64       cross-compiled, under qemu, with and without the dot product
#
# scripts/test_kernels.sh [--require] [native] [sanitizers] [arm64]      default: all three
#
# --require: what arm64 lacks (Debian: g++-aarch64-linux-gnu qemu-user) is an error, not a line.
set -euo pipefail
cd "$(dirname "$0")/.."

require=false
parts=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/test_kernels.sh; exit ;;
    --require) require=true ;;
    native | sanitizers | arm64) parts+=("$argument") ;;
    *) echo "unknown argument '$argument'; known: --help --require native sanitizers arm64" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(native sanitizers arm64)

csrc=lowbit/kernels/csrc
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail() { echo "test_kernels: $*" >&2; exit 1; }

architecture_of() {
  case $1 in
    x86_64 | amd64) echo x86 ;;
    aarch64 | arm64) echo arm64 ;;
    *) echo none ;;
  esac
}

# build FOLDER ARCHITECTURE COMPILER -O FLAG...: every test into FOLDER/<name>, with all that is not
# torch's in csrc. Per-file flags are those of flags.txt, as in CMakeLists.txt.
build() {
  local folder=$1 architecture=$2 compiler=$3 optimise=$4 source name flags
  local common="-std=c++17 -I$csrc -ffp-contract=off -fvisibility=hidden -Wall -Wextra -Werror"
  [ "$architecture" = none ] || common+=" -DLOWBIT_$(echo "$architecture" | tr '[:lower:]' '[:upper:]')"
  common+=" ${*:4}"
  mkdir -p "$folder"
  for source in "$csrc"/*.cc tests/kernels/csrc/*_test.cc; do
    name=$(basename "$source")
    case $name in
      x86_* | arm64_*) [ "${name%%_*}" = "$architecture" ] || continue ;;
    esac
    ! grep -q '#include <torch/' "$source" || continue
    flags=$(sed -n "s/^$name/-fno-exceptions/p" "$csrc/flags.txt")
    [[ $name != *_test.cc ]] || flags=${optimise/-O3/-O2} # half the time to compile
    echo "$compiler $common $flags -c $source -o $folder/${name%.cc}.o"
  done > "$folder/commands"
  xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '{}' < "$folder/commands" \
    || fail "does not compile: $folder"
  for source in tests/kernels/csrc/*_test.cc; do
    name=$(basename "$source" .cc)
    # shellcheck disable=SC2046,SC2086
    $compiler $common -pthread $(ls "$folder"/*.o | grep -v '_test\.o$') "$folder/$name.o" \
      -o "$folder/$name"
  done
}

# run FOLDER PREFIX... -- ARGUMENT...: every test in FOLDER; keeps what core_test prints.
run() {
  local folder=$1 prefix=() test
  shift
  while [ "$1" != -- ]; do prefix+=("$1"); shift; done
  shift
  for test in tests/kernels/csrc/*_test.cc; do
    test=$(basename "$test" .cc)
    "${prefix[@]}" "$folder/$test" "$@" | tee "$folder/$test.log" || fail "$test failed"
  done
}

# have_run FOLDER CORE...: core_test in FOLDER printed a line for each of them, and int8_test for
# each with the prefix int8_.
have_run() {
  local core test
  for core in "${@:2}"; do
    test=core_test
    [[ $core != int8_* ]] || test=int8_test
    grep -qw -- "${core#int8_}" "$1/$test.log" || fail "$core is supported here, and was not tested"
  done
}

# What this processor supports, asked of the system and not of the code under test.
cores_here() {
  local flags
  echo scalar int8_scalar
  if [ -r /proc/cpuinfo ]; then
    flags=$(grep -m1 -iE '^(flags|features)[[:space:]]*:' /proc/cpuinfo || true)
  else
    flags="asimd asimddp" # Apple's processors
    [ "$(architecture_of "$(uname -m)")" = arm64 ] || flags=""
  fi
  has() { local flag; for flag in "$@"; do [[ " $flags " == *" $flag "* ]] || return 1; done; }
  ! has avx2 fma || echo avx2 int8_avx2
  ! has avx2 fma avx512f avx512bw avx512vl avx512dq || echo avx512bw int8_avx512bw
  ! has avx2 fma avx512f avx512bw avx512vl avx512dq avx512_vnni || echo int8_avx512_vnni
  ! has avx2 fma avx512f avx512bw avx512vl avx512dq avx512_vpopcntdq || echo avx512_vpopcntdq
  ! has asimd || echo neon
  ! has asimddp || echo neon_dot int8_neon_dot
}

native() {
  local object leaked
  build "$out/native" "$(architecture_of "$(uname -m)")" "${CXX:-c++}" -O3
  for object in "$out"/native/x86_*.o "$out"/native/arm64_*.o; do
    [ -e "$object" ] || continue
    leaked=$(nm -P "$object" | awk '$2 ~ /^[VWu]$/ && $3 != "" { print $1 }')
    [ -z "$leaked" ] || fail "$(basename "$object") defines what others may link to: $leaked"
  done
  run "$out/native" --
  # shellcheck disable=SC2046
  have_run "$out/native" $(cores_here)
}

sanitizers() {
  build "$out/sanitizers" "$(architecture_of "$(uname -m)")" "${CXX:-c++}" \
    -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
  run "$out/sanitizers" --
  # shellcheck disable=SC2046
  have_run "$out/sanitizers" $(cores_here)
}

arm64() {
  local compiler=aarch64-linux-gnu-g++ emulator=qemu-aarch64 lacks="" status=0
  command -v $compiler > /dev/null || lacks+=" g++-aarch64-linux-gnu"
  command -v $emulator > /dev/null || lacks+=" qemu-user"
  if [ -n "$lacks" ]; then
    $require && fail "arm64 needs the Debian packages$lacks"
    echo "arm64: not tested, the Debian packages$lacks are missing"
    return
  fi
  build "$out/arm64" arm64 $compiler -O3 -static
  run "$out/arm64" $emulator -cpu max -- --quick
  have_run "$out/arm64" neon_dot neon scalar int8_neon_dot int8_scalar
  $emulator -cpu cortex-a53 "$out/arm64/core_test" --quick neon_dot > /dev/null 2>&1 || status=$?
  [ $status -eq 2 ] || fail "neon_dot on a processor without it: exit $status, 2 expected"
}

compgen -G 'tests/kernels/csrc/*_test.cc' > /dev/null || fail "there is no tests/kernels/csrc/*_test.cc"
for part in "${parts[@]}"; do
  echo "== $part"
  "$part"
done
