#!/usr/bin/env bash
# Measures llama.cpp's Vulkan kernels and writes yardstick.json. Needs the network, pip and cmake; the check needs none of them.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
package=llama-cpp-python==0.3.36 # on PyPI; its source holds llama.cpp's
caches=${HOME:-/tmp}/.cache
# One that is relative is ignored, as its specification asks.
case ${XDG_CACHE_HOME:-} in /*) caches=$XDG_CACHE_HOME ;; esac
work=${BROOKLET_CACHE:-$caches/brooklet}/yardstick
mkdir -p -- "$work"

shaders() { compgen -G "$work/*/vendor/llama.cpp/ggml/src/ggml-vulkan/vulkan-shaders"; }
if ! shaders >/dev/null; then
    python3 -m pip download --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$work" "$package" >&2
    tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --wildcards \
        '*/vendor/llama.cpp/ggml/src/ggml-vulkan/vulkan-shaders/*' '*/vendor/llama.cpp/ggml/CMakeLists.txt'
fi
folder=$(shaders)
version=$(sed -n 's/^set(GGML_VERSION_[A-Z]* \([0-9]*\)).*/\1/p' "$folder"/../../../CMakeLists.txt | paste -sd .)

# Builds shaderc as its crate holds it.
glslc=$(cargo build --quiet --release --package glslc --manifest-path "$here/Cargo.toml" --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

# The names and definitions of vulkan-shaders-gen.cpp.
rm -f -- "$work"/*.spv
cd -- "$folder"
for type in f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k; do
    file=mul_mat_vec.comp optimise=(-O)
    case $type in
    *_k) file=mul_mat_vec_$type.comp ;;
    bf16) optimise=() ;;
    esac
    common=("-DDATA_A_${type^^}=1" -DD_TYPE=float -DFLOAT_TYPE=float -DFLOAT_TYPEV2=vec2)
    f32=(-DB_TYPE=float -DB_TYPEV2=vec2 -DB_TYPEV4=vec4)
    for sums in '' _subgroup_no_shmem; do
        sum=()
        [ -z "$sums" ] || sum=(-DUSE_SUBGROUP_ADD_NO_SHMEM=1)
        "$glslc" "${optimise[@]}" "${common[@]}" "${f32[@]}" "${sum[@]}" "$file" -o "$work/mul_mat_vec_${type}_f32_f32$sums.spv"
        case $type in q*)
            "$glslc" -O "${common[@]}" -DACC_TYPE=float "${sum[@]}" mul_mat_vecq.comp -o "$work/mul_mat_vec_${type}_q8_1_f32$sums.spv"
            ;;
        esac
    done
done

origin="Vulkan kernels of llama.cpp (ggml $version) as in $package on PyPI, compiled with the definitions of its \
vulkan-shaders-gen.cpp and the specialisation constants that ggml-vulkan.cpp chooses for AMD's GPUs (subgroups of 64), \
measured by tools/isa-stats/yardstick.sh with RADV."
"$here/run.sh" yardstick "$work" "$origin" >"$work/yardstick.json"
mv -- "$work/yardstick.json" "$here/yardstick.json"
