//! docs/isa-stats.md.
use crate::check::is_int8;
use crate::gpu::Family;
use crate::measure::Measured;
use crate::shader::Shader;
use crate::yardstick::Yardstick;
use brooklet::format::DType;
use std::fmt::Write;

/// All that was measured on one GPU.
pub struct Page {
    /// The GPU.
    pub family: Family,
    /// Its driver.
    pub driver: String,
    /// Shaders and their figures.
    pub lines: Vec<(Shader, Measured)>,
}

const INTRODUCTION: &str = "# What AMD's compiler makes of the kernels

Written by `tools/isa-stats/run.sh table`; `./build.sh isa` checks that it stays so. No GPU is needed: Mesa's RADV compiles
for one that is not there. How it is counted: [tools/isa-stats](../tools/isa-stats/README.md).

Decoding reads every weight once, so a kernel is good if the memory decides how long it takes: loads of 16 bytes, enough
subgroups at once to wait for many of them, and few instructions for each byte that comes in. The last is the figure in
bold, beside that of llama.cpp's own Vulkan kernels, compiled and counted by the same program. Less is better; a GPU
with 512 GB/s and 20 TFLOPS (two operations an instruction) has time for about 20.
";

const READING: &str = "
Registers and subgroups are the worst of a type's kernels (plain, with the norm, onto the residual stream; every
epilogue), instructions per byte the most. *f32* and *int8* are the types of the activations. llama.cpp takes int8 ones
where a row has 2,048 weights or more, except for Q6_K, and on RDNA for Q8_0.

Products of a chunk are counted as if every subgroup brought weights and activations, of which each does one or neither;
where the compiler leaves a loop in that loop, they are not. In
attention by tiles the hot loop is that of the scores, and a byte serves 32 queries.
";

/// The kernels of a type that do the same in their hot loop.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Group {
    title: &'static str,
    subgroups: bool,
    int8: bool,
}

const GROUPS: [Group; 4] = [
    Group { title: "one subgroup a workgroup, f32", subgroups: true, int8: false },
    Group { title: "no subgroups, f32", subgroups: false, int8: false },
    Group { title: "one subgroup a workgroup, int8", subgroups: true, int8: true },
    Group { title: "no subgroups, int8", subgroups: false, int8: true },
];

/// The whole text.
pub fn text(pages: &[Page], yardstick: &Yardstick) -> String {
    let mut out = INTRODUCTION.to_owned();
    out += READING;
    for page in pages {
        let Family { name, known_as, .. } = page.family;
        let _ = write!(out, "\n## {name} ({known_as})\n\n{}.\n", page.driver);
        for group in GROUPS {
            products(&mut out, page, group, yardstick);
        }
        tiles(&mut out, page);
        attention(&mut out, page);
    }
    let _ = write!(out, "\n## llama.cpp's\n\n{}\n", yardstick.origin);
    out
}

fn products(out: &mut String, page: &Page, group: Group, yardstick: &Yardstick) {
    let belongs = |(shader, _): &&(Shader, Measured)| {
        shader.name.starts_with("matvec")
            && shader.needs_subgroups == group.subgroups
            && is_int8(shader) == group.int8
    };
    let lines: Vec<_> = page.lines.iter().filter(belongs).collect();
    if lines.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "\n### Weights: {}\n\n| type | kernels | registers | subgroups a SIMD | loads of quants | instructions per weight \
         byte | llama.cpp, f32 | llama.cpp, int8 |\n|---|---|---|---|---|---|---|---|\n",
        group.title
    );
    for format in DType::ALL {
        let of: Vec<_> =
            lines.iter().filter(|(shader, _)| shader.reads.format == Some(format)).collect();
        let hot: Vec<_> = of.iter().filter_map(|(_, measured)| measured.hot.as_ref()).collect();
        let most = hot.iter().map(|hot| hot.per_byte()).fold(f64::NAN, f64::max);
        let (Some(registers), Some(waves), Some(first)) = (
            of.iter().map(|(_, m)| m.vgprs).max(),
            of.iter().map(|(_, m)| m.waves).min(),
            hot.first(),
        ) else {
            continue;
        };
        let peer = |int8| {
            let best = yardstick.best(page.family, format, int8);
            best.map_or("".into(), |peer| format!("{:.2}", peer.per_byte))
        };
        let loads: Vec<_> = first
            .quant_loads
            .iter()
            .map(|(bytes, count)| format!("{count} of {bytes} B"))
            .collect();
        let _ = writeln!(
            out,
            "| {format} | {} | {registers} | {waves} | {} | **{most:.2}** | {} | {} |",
            of.len(),
            loads.join(", "),
            peer(false),
            peer(true)
        );
    }
}

/// Multiply-adds of a lane of `matmul_tiles` for each of the weights it has in a round: four rows and four tokens.
const PRODUCTS: f64 = 16.0;

fn tiles(out: &mut String, page: &Page) {
    let _ = write!(
        out,
        "\n### Products of a chunk, by tiles\n\n| type | registers | workgroup memory | subgroups a SIMD | loads of quants | \
         instructions per multiply-add |\n|---|---|---|---|---|---|\n"
    );
    for format in DType::ALL {
        let of = page.lines.iter().filter(|(shader, _)| {
            shader.name.starts_with("matmul_tiles") && shader.reads.format == Some(format)
        });
        // The epilogues do not differ in the loop.
        let Some((_, m)) = of.max_by_key(|(_, m)| m.vgprs) else { continue };
        let hot = m.hot.as_ref().map_or((String::new(), String::new()), |hot| {
            let loads: Vec<_> =
                hot.quant_loads.iter().map(|(bytes, n)| format!("{n} of {bytes} B")).collect();
            let each = f64::from(hot.instructions) / (f64::from(hot.weights) * PRODUCTS);
            (loads.join(", "), format!("{each:.2}"))
        });
        let _ = writeln!(
            out,
            "| {format} | {} | {} B | {} | {} | {} |",
            m.vgprs, m.lds, m.waves, hot.0, hot.1
        );
    }
}

fn attention(out: &mut String, page: &Page) {
    let _ = write!(
        out,
        "\n### Attention\n\n| kernel | lanes | registers | workgroup memory | subgroups a SIMD | loads of keys or values | \
         instructions per byte of them |\n|---|---|---|---|---|---|---|\n"
    );
    for (shader, m) in page.lines.iter().filter(|(shader, _)| shader.name.starts_with("attention"))
    {
        let hot = m.hot.as_ref().map_or((String::new(), String::new()), |hot| {
            let loads: Vec<_> =
                hot.quant_loads.iter().map(|(bytes, n)| format!("{n} of {bytes} B")).collect();
            (loads.join(", "), format!("{:.2}", hot.per_byte()))
        });
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} B | {} | {} | {} |",
            shader.name, m.lanes, m.vgprs, m.lds, m.waves, hot.0, hot.1
        );
    }
}
