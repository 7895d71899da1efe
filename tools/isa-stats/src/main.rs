//! What AMD's compiler makes of the engine's kernels, beside llama.cpp's; README.md says how it is counted.
mod assembly;
mod check;
mod gpu;
mod measure;
mod shader;
mod table;
#[cfg(test)]
mod tests;
mod traffic;
mod yardstick;

use gpu::{FAMILIES, Family, Gpu};
use measure::{Measured, measure};
use shader::{Client, Shader, shaders};
use std::path::Path;
use std::process::ExitCode;
use yardstick::Yardstick;

/// What went wrong, as a sentence.
pub struct Fail(pub String);

/// Of whatever can fail.
pub type Result<T> = std::result::Result<T, Fail>;

impl<E: std::error::Error> From<E> for Fail {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

const USAGE: &str = "usage: run.sh COMMAND
  check                     whether every kernel is as good as it has to be
  table FILE                writes the figures of all of them
  report [FAMILY] [WORD]    prints those of the kernels whose names hold WORD
  file FAMILY FILE.wgsl     prints those of one file, named for its type as the engine's kernels are
  asm FAMILY NAME           prints the assembly of a kernel, of a FILE.wgsl or of llama.cpp's FILE.spv
  yardstick FOLDER ORIGIN   measures llama.cpp's kernels (yardstick.sh)
families: navi21, navi31, vega10";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(Fail(why)) => {
            eprintln!("isa-stats: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        ["driver"] => driver()?,
        ["check"] => return check(),
        ["table", path] => {
            let pages = FAMILIES.map(page).into_iter().collect::<Result<Vec<_>>>()?;
            std::fs::write(path, table::text(&pages, &Yardstick::read()?))?;
        }
        ["report", words @ ..] => report(words)?,
        ["file", family, path] => {
            let family = family_named(family)?;
            for (_, measured) in measured(family, &file(path, family)?)? {
                println!("{}", line(&measured));
            }
        }
        ["asm", family, name] => assembly(family_named(family)?, name)?,
        ["yardstick", folder, origin] => {
            print!("{}", yardstick::make(Path::new(folder), (*origin).to_owned())?.text()?);
        }
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn family_named(name: &str) -> Result<Family> {
    let found = FAMILIES.into_iter().find(|family| family.name == name);
    found.ok_or_else(|| {
        Fail(format!("no family is called {name}; there are navi21, navi31 and vega10"))
    })
}

/// Says what the driver is, or why it will not do.
fn driver() -> Result<()> {
    let driver = Gpu::open(FAMILIES[0], Client::Wgpu)?.driver;
    let major =
        driver.split("Mesa ").nth(1).and_then(|version| version.split('.').next()?.parse().ok());
    match major {
        Some(24..) => println!("{driver}"),
        _ => return Err(Fail(format!("{driver} is too old, Mesa 24 or newer is needed"))),
    }
    Ok(())
}

/// The kernels that a GPU would run of those whose names hold `word`.
fn kernels(family: Family, word: &str) -> Result<Vec<Shader>> {
    let all = brooklet::ops::kernels().into_iter().filter(|kernel| kernel.name.contains(word));
    let mut found = Vec::new();
    for kernel in all.filter(|kernel| !shader::is_for_software(kernel.name)) {
        found.extend(shaders(kernel.name, &kernel.wgsl.text(), kernel.subgroups, family)?);
    }
    Ok(found)
}

fn file(path: &str, family: Family) -> Result<Vec<Shader>> {
    let wgsl = std::fs::read_to_string(path).map_err(|e| Fail(format!("{path}: {e}")))?;
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    shaders(&stem, &wgsl, wgsl.contains("subgroupAdd("), family)
}

fn measured(family: Family, shaders: &[Shader]) -> Result<Vec<(&Shader, Measured)>> {
    let gpu = Gpu::open(family, Client::Wgpu)?;
    shaders.iter().map(|shader| Ok((shader, measure(&gpu, shader)?.0))).collect()
}

fn page(family: Family) -> Result<table::Page> {
    let gpu = Gpu::open(family, Client::Wgpu)?;
    let is_wanted = |shader: &Shader| is_checked(&shader.name);
    let shaders = kernels(family, "")?.into_iter().filter(is_wanted);
    let lines = shaders.map(|shader| {
        let (measured, _) = measure(&gpu, &shader)?;
        Ok((shader, measured))
    });
    Ok(table::Page { family, driver: gpu.driver.clone(), lines: lines.collect::<Result<_>>()? })
}

fn is_checked(name: &str) -> bool {
    ["matvec", "attention", "matmul_tiles"].iter().any(|stem| name.starts_with(stem))
}

fn check() -> Result<ExitCode> {
    let yardstick = Yardstick::read()?;
    let (mut looked_at, mut violations) = (0, Vec::new());
    for page in FAMILIES.map(page) {
        let page = page?;
        for (shader, measured) in &page.lines {
            looked_at += 1;
            violations.extend(check::violations(page.family, shader, measured, &yardstick));
        }
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    eprintln!("{looked_at} shaders on {} GPUs, {} complaints", FAMILIES.len(), violations.len());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(words: &[&str]) -> Result<()> {
    let (families, word) = match words {
        [] => (FAMILIES.to_vec(), ""),
        [one] => family_named(one).map_or((FAMILIES.to_vec(), *one), |family| (vec![family], "")),
        [family, word] => (vec![family_named(family)?], *word),
        _ => return Err(Fail(USAGE.into())),
    };
    for family in families {
        println!("{} ({})", family.name, family.known_as);
        for (_, measured) in measured(family, &kernels(family, word)?)? {
            println!("{}", line(&measured));
        }
    }
    Ok(())
}

fn assembly(family: Family, name: &str) -> Result<()> {
    let shaders = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("wgsl") => file(name, family)?,
        Some("spv") => vec![yardstick::peer(Path::new(name), family)?],
        _ => kernels(family, name)?,
    };
    let exact = shaders.iter().find(|shader| shader.name.split(' ').next() == Some(name));
    let shader =
        exact.or(shaders.first()).ok_or_else(|| Fail(format!("no kernel is called {name}")))?;
    let (measured, compiled) = measure(&Gpu::open(family, shader.client)?, shader)?;
    println!("; {}\n{}", line(&measured), compiled.assembly);
    Ok(())
}

/// All of one shader's figures.
fn line(m: &Measured) -> String {
    let hot = m.hot.as_ref().map_or("no loop reads weights".to_owned(), |hot| {
        format!(
            "{:5.2} instructions per byte: {} for {:.1} bytes ({} weights), quant loads {:?}, other loads {:?}, {:?}",
            hot.per_byte(),
            hot.instructions,
            hot.weight_bytes,
            hot.weights,
            hot.quant_loads,
            hot.other_loads,
            hot.kinds
        )
    });
    format!(
        "{:<44} lanes {}/{}, vgprs {:>3}, sgprs {:>3}, spills {}, lds {:>5}, waves {:>2}, instructions {:>4}; {hot}",
        m.name, m.lanes, m.subgroup, m.vgprs, m.sgprs, m.spills, m.lds, m.waves, m.instructions
    )
}
