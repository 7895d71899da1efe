//! glslc [-O] [-DNAME=VALUE]... FILE.comp -o FILE.spv, for Vulkan 1.2.
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let compiler = shaderc::Compiler::new()?;
    let mut options = shaderc::CompileOptions::new()?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    options.set_include_callback(|name, _, from, _| {
        let path = Path::new(from).with_file_name(name);
        let content =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(shaderc::ResolvedInclude { resolved_name: path.display().to_string(), content })
    });
    let (mut source, mut made) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-O" => options.set_optimization_level(shaderc::OptimizationLevel::Performance),
            "-o" => made = args.next(),
            _ => match arg
                .strip_prefix("-D")
                .map(|define| define.split_once('=').unwrap_or((define, "1")))
            {
                Some((name, value)) => options.add_macro_definition(name, Some(value)),
                None => source = Some(arg),
            },
        }
    }
    let (source, made) =
        source.zip(made).ok_or("usage: glslc [-O] [-DNAME=VALUE]... FILE.comp -o FILE.spv")?;
    let text = std::fs::read_to_string(&source)?;
    let kind = shaderc::ShaderKind::Compute;
    let spirv = compiler.compile_into_spirv(&text, kind, &source, "main", Some(&options))?;
    std::fs::write(made, spirv.as_binary_u8())?;
    Ok(())
}
