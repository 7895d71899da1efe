#!/usr/bin/env bash
# Measures what docs/results shows, a part or all of it, and writes the page anew:
#
#   tools/results/run.sh BROOKLET BOOK TINY [PART…]
#
# BROOKLET: the release binary; BOOK: a long text; TINY: a model so small that a million tokens of it are soon made.
# Parts: windows streaming f16 difference sinks policies recompute book latency laps soak streameval sinkscan page. `./build.sh results` calls it.
# Another is alibi, only where it is asked for: it trains a model first, for which PYTHON, or python3, needs PyTorch (alibi.py).
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
brooklet=$1 book=$2 tiny=$3
shift 3
[ $# -gt 0 ] || set -- windows streaming f16 difference sinks policies recompute book latency laps soak streameval sinkscan page
out=$here/../../docs/results
data=$out/data
mkdir -p -- "$data"

ranges=0-4096,0-2048,2048-8192,8192-12288,12288-32768,0-32768
measure() { # NAME, then a command of brooklet that prints JSON
    local name=$1
    shift
    printf 'results: %s\n' "$name" >&2
    "$brooklet" "$@" --json >"$data/$name.part"
    mv -- "$data/$name.part" "$data/$name.json"
}
ppl() { # NAME, then options
    local name=$1
    shift
    measure "$name" ppl "$book" --ranges "$ranges" "$@"
}
bench() { measure "$1" bench "${@:2}"; }

# The reference implementation's x + y is --sinks x --window y + 1 here.
for part in "$@"; do
    case $part in
    windows)
        ppl window --kv f32 --tokens 4096 --policy window --sweep window=257,513,1025
        ppl dense --kv f32 --tokens 12288 --policy dense --window 12288
        ;;
    streaming) ppl streaming --kv f32 --tokens 32768 --sinks 4 --sweep window=253,509,1021 ;;
    f16) ppl f16 --kv f16 --tokens 4096 --sinks 4 --sweep window=509,1021 ;; # 253: the book
    difference)
        measure difference ppl "$book" --tokens 256 --policy streaming,dense --sinks 4 --window 124 --csv "$data/difference.csv"
        ;;
    sinks)
        ppl sinks --kv f32 --tokens 4096 --sinks 4 --window 253 --sweep sinks=0,1,2,4,8 --chart "$out/sinks.svg"
        ppl newlines --kv f32 --tokens 4096 --sinks 4 --window 253 --prefix 198,198,198,198
        ;;
    recompute)
        for window in 257 513 1025; do
            ppl "recompute-$window" --kv f32 --tokens 2304 --policy recompute,streaming --sinks 4 \
                --window "$window" --positions 6 --after 2048
        done
        ;;
    policies)
        ppl policies --tokens 4096 --policy streaming,window,dense,half-discard --sinks 4 --window 253 \
            --chart "$out/policies.svg"
        ;;
    book) ppl book --kv f16 --sinks 4 --window 253 --chart "$out/book.svg" ;;
    latency)
        bench latency --cache 256,512,1024,2048,4096 --policy streaming,recompute --prefilled -n 5 --sizes-chart "$out/latency.svg"
        ;;
    soak) measure soak soak -m "$tiny" --tokens 1000000 --kv f32 ;;
    streameval) measure streameval streameval --lines 60 --distance 20,50 --window 1020 ;;
    sinkscan) measure sinkscan sinkscan -f "$book" --no-store --chart "$out/attention.svg" ;;
    alibi)
        model=$here/../../target/alibi
        "${PYTHON:-python3}" "$here/alibi.py" "$brooklet" "$book" "$model" "$data/alibi-model.json"
        measure alibi ppl "$model/held.txt" -m "$model/alibi.gguf" --kv f32 --tokens 16384 --policy streaming,dense --context 4096 \
            --sinks 4 --window 60 --sweep sinks=0,1,4 --ranges 0-256,256-4096,4096-16384 --chart "$out/alibi.svg"
        ;;
    page) ;; # after everything
    laps) LP_NUM_THREADS=1 bench laps --cache 256 --policy streaming,half-discard --laps 3 --tokens-chart "$out/laps.svg" ;;
    *) printf 'results: there is no part "%s"\n' "$part" >&2 && exit 2 ;;
    esac
done
# A figure is anyone's, the folder it was measured in is not.
for file in "$data"/*.json; do
    sed -i.part -e "s|\"[^\"]*/\([^/\"]*\.gguf\)\"|\"\1\"|" -e "s|\"text\":\"[^\"]*/|\"text\":\"|" -- "$file"
    rm -f -- "$file.part"
done
node "$here/page.mjs" "$out"
