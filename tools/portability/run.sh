#!/usr/bin/env bash
# Takes every kernel, with the overrides that engines give it, to the compilers of other platforms that are to be had
# here: `tools/portability/run.sh` leaves a table in target/portability/table.md, `run.sh write` also writes it into
# docs/portability.md. What a compiler refuses ends it with status 1. A run that was ended leaves what it has come to, and
# `on` goes on from there if the kernels are the same.
#
# Wanted: web/pkg (./build.sh web) and a Chromium; spirv-val (Debian: spirv-tools); wine and a C compiler for Windows
# (Debian: wine64 gcc-mingw-w64-x86-64), whose DLLs come in the npm package webgpu; Firefox; web/runtimes/node_modules.
# What is missing has no column, and that is said. `BROOKLET_RAN` names a file in which the tests have noted what they ran
# and on which driver (src/gpu/ran.rs); without it the kernels' tests and a model are run for it, on the driver that is found,
# there also as each class of GPU, and on SwiftShader.
set -euo pipefail
case "$*" in
'' | write | on | 'on write') ;;
*) echo "usage: tools/portability/run.sh [on] [write]" >&2 && exit 2 ;;
esac
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tools/portability
out=$root/target/portability
say() { printf 'portability: %s\n' "$*" >&2; }
die() { say "$*" && exit 1; }

[ -e "$root/web/pkg/brooklet_bg.wasm" ] || die "web/pkg is missing: ./build.sh web"
[ "${1:-}" = on ] || rm -rf -- "$out"
[ "${1:-}" != on ] || shift
mkdir -p -- "$out"
say "translating every kernel"
(cd -- "$root" && BROOKLET_TRANSLATIONS=$out cargo test --quiet --locked --lib tests::portability -- --nocapture) >&2

[ ! -s "$out/ran.txt" ] || export BROOKLET_RAN=$out/ran.txt
if [ -z "${BROOKLET_RAN:-}" ]; then
    export BROOKLET_RAN=$out/ran.txt
    swiftshader=$(compgen -G '/usr/lib*/chromium*/vk_swiftshader_icd.json' | head -n 1 || true)
    model=tests::golden::a_prompt_has_the_ids_and_logits_of_another_engine
    ops() { # [CLASS]
        say "running the kernels' tests and a model${1:+ as $1}${VK_DRIVER_FILES:+ on $VK_DRIVER_FILES} to see which they run"
        (cd -- "$root" && BROOKLET_AS=${1:-} cargo test --quiet --locked --lib -- tests::ops "$model") >&2
    }
    for class in '' gpu32 gpu64 gpu-plain gpu-subgroup; do ops $class; done
    # shellcheck disable=SC2030,SC2031 # for this driver alone
    [ -z "$swiftshader" ] || (export VK_DRIVER_FILES=$swiftshader VK_ICD_FILENAMES=$swiftshader && ops)
fi

windows=$root/web/runtimes/node_modules/webgpu/dist/win32-x64
wine=$(compgen -G '/usr/lib/wine/wine64' || command -v wine64 || command -v wine || true)
gcc=$(command -v x86_64-w64-mingw32-gcc || true)
if [ -n "$wine" ] && [ -n "$gcc" ] && [ -e "$windows/dxcompiler.dll" ]; then
    # The DLL beside the program, and not wine's own of that name.
    cp -- "$windows"/{dxcompiler,d3dcompiler_47}.dll "$out"
    "$gcc" -O1 -Wall -Werror -o "$out/compile.exe" "$here/compile.c"
    export WINEPREFIX=$out/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml=;d3dcompiler_47=n'
    export BROOKLET_WINE=$wine
else
    say "wine, mingw's gcc or web/runtimes/node_modules is missing: DX12's compilers are left out"
fi
page=
[ "${1:-}" != write ] || page=$root/docs/portability.md
exec node "$here/check.mjs" "$out" "$BROOKLET_RAN" ${page:+"$page"}
