//! Kernels that count the iterations of their loops, for the test that holds `Work::iterations` to them.
use super::{Access, Gpu, KernelSource, Recording, Tensor};
use crate::Result;
use crate::shaders::Wgsl;

/// The same kernel with one binding more, where the most iterations of any of its invocations come. Its source lives as
/// long as the test.
pub(super) fn counting(source: KernelSource) -> KernelSource {
    let text = source.wgsl.text();
    let counted = text.lines().map(|line| {
        let code = line.split("//").next().unwrap_or_default().trim();
        let begins = ["for (", "while ", "loop {"].iter().any(|loops| code.starts_with(loops));
        assert!(!begins || code.ends_with('{'), "{}: a loop on one line: {line}", source.name);
        if begins { format!("{line} loops_made += 1u;") } else { line.to_owned() }
    });
    let counted: Vec<String> = counted.collect();
    let counted = counted.join("\n");
    let (before, main) = counted.split_once("@compute ").expect("every kernel has an entry point");
    let (size, main) = main.split_once("fn main(").expect("it is called main");
    let (arguments, body) = main.split_once(") {").expect("its arguments end");
    let plain = arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty());
    let plain: Vec<&str> = plain.filter_map(|argument| argument.split(") ").nth(1)).collect();
    let names: Vec<&str> = plain.iter().filter_map(|a| a.split(':').next()).collect();
    let (plain, names) = (plain.join(", "), names.join(", "));
    let binding = 1 + source.bindings.len();
    let wgsl = format!(
        "{before}\nvar<private> loops_made: u32;\n\
         @group(0) @binding({binding}) var<storage, read_write> loops_most: atomic<u32>;\n\
         fn uncounted({plain}) {{{body}\n\
         @compute {size}fn main({arguments}) {{\n\
         loops_made = 0u;\nuncounted({names});\natomicMax(&loops_most, loops_made);\n}}\n"
    );
    let bindings = [source.bindings, &[Access::Write]].concat();
    KernelSource { wgsl: Wgsl::of_text(source.name, wgsl), bindings: bindings.leak(), ..source }
}

/// Room for every dispatch's count, where its `Params` are in theirs, which take so many bytes.
pub(super) fn room(gpu: &Gpu, params: usize) -> Option<Tensor> {
    let room = || Tensor::zeros(gpu, "loops", &[params / 4]);
    gpu.counts_loops.then(|| room().expect("a device has room for numbers"))
}

/// Runs what was recorded: of every dispatch its kernel, the iterations that it states, and those that it makes.
pub(crate) async fn counted_loops(
    gpu: &Gpu,
    recording: Recording,
) -> Result<Vec<(&'static str, u64, u64)>> {
    let program = recording.finish(gpu)?;
    program.run(gpu, &[]);
    let loops = program.loops.as_ref().expect("the device was told to count");
    let made: Vec<u32> = loops.read(gpu).await?;
    let of_one = |(_, dispatch): &super::recording::Step| {
        let made = made[dispatch.params_offset as usize / 4];
        (dispatch.kernel, dispatch.work.iterations, u64::from(made))
    };
    Ok(program.steps.iter().map(of_one).collect())
}
