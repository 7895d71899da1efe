#!/usr/bin/env bash
# Builds isa-stats, finds RADV and runs it: README.md says what for.
#   run.sh check | table [FILE] | report [FAMILY] [WORD] | file FAMILY FILE.wgsl | asm FAMILY NAME
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
caches=${HOME:-/tmp}/.cache
# One that is relative is ignored, as its specification asks.
case ${XDG_CACHE_HOME:-} in /*) caches=$XDG_CACHE_HOME ;; esac
cache=${BROOKLET_CACHE:-$caches/brooklet}/radv

say() { printf 'isa-stats: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

[ "$(uname -s)" = Linux ] || die "RADV, Mesa's Vulkan driver for AMD's GPUs, runs on Linux only; no GPU is needed, but Linux is"
command -v cargo >/dev/null || die "cargo is needed to build this program"

# Not --locked: the lock file need not follow every dependency of the engine.
program=$(cargo build --quiet --release --manifest-path "$here/Cargo.toml" --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -n "$program" ] || die "cargo built no program; see above"

# ---- the driver ----

use() { # MANIFEST; the older name is for loaders before 1.3.207
    export VK_DRIVER_FILES=$1 VK_ICD_FILENAMES=$1
}

installed() {
    local manifest
    for manifest in /usr/share/vulkan/icd.d/radeon_icd*.json /etc/vulkan/icd.d/radeon_icd*.json /usr/local/share/vulkan/icd.d/radeon_icd*.json; do
        if [ -e "$manifest" ] && (use "$manifest" && "$program" driver >/dev/null 2>&1); then
            use "$manifest"
            return
        fi
    done
    return 1
}

unpacked() {
    local libraries
    libraries=$(compgen -G "$cache/usr/lib/*/libvulkan_radeon.so") || return 1
    libraries=${libraries%/*}
    printf '{"file_format_version":"1.0.0","ICD":{"api_version":"1.3.0","library_path":"%s"}}\n' \
        "$libraries/libvulkan_radeon.so" >"$cache/radeon.json"
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    use "$cache/radeon.json"
}

# The system's own Debian source, for the backports of the same release.
backports() {
    local suite=$1 file
    for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ -s "$file" ] || continue
        case $file in
        *.sources) awk '/^Types:/ { n++ } n == 1' "$file" | sed "s/^Suites:.*/Suites: $suite/" >"$2/backports.sources" ;;
        *) sed -n "s/^\(deb \(\[.*\] \)\{0,1\}[^ ]* \)[^ ]* .*/\1$suite main/p" "$file" | head -n 1 >"$2/backports.list" ;;
        esac
        return
    done
    return 1
}

# Beside the system's, and changing nothing of it. Its other libraries are those of the installed Mesa.
fetch() {
    local suite lists apt package
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)-backports
    say "no RADV of Mesa 24 or newer is installed: unpacking that of $suite into $cache"
    lists=$(mktemp -d)
    mkdir -p -- "$cache" "$lists/state/partial" "$lists/cache/partial"
    backports "$suite" "$lists" || return 1
    apt=(-q "-oDir::Etc::SourceList=$lists/backports.list" "-oDir::Etc::SourceParts=$lists"
        "-oDir::State::Lists=$lists/state" "-oDir::Cache::Archives=$lists/cache" -oAPT::Sandbox::User=root)
    touch "$lists/backports.list"
    if apt-get "${apt[@]}" update >&2 &&
        (cd -- "$lists" && apt-get "${apt[@]}" download mesa-vulkan-drivers libdrm2 libdrm-amdgpu1 >&2); then
        for package in "$lists"/*.deb; do dpkg -x "$package" "$cache"; done
    fi
    rm -rf -- "$lists"
    [ -n "$(compgen -G "$cache/usr/lib/*/libvulkan_radeon.so")" ]
}

if [ -z "${VK_DRIVER_FILES:-}" ] || ! "$program" driver >/dev/null 2>&1; then
    if ! installed && ! unpacked && ! { fetch && unpacked; }; then
        die "RADV of Mesa 24 or newer is needed (mesa-vulkan-drivers on Debian and Fedora, vulkan-radeon on Arch), and no GPU"
    fi
fi
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}

# ---- run ----

if [ "$*" = table ]; then set -- table "$here/../../docs/isa-stats.md"; fi
# RADV complains that a GPU that is not there has no address.
"$program" "$@" 2> >(grep -v ac_compute_device_uuid >&2)
