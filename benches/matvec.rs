//! Time of the weight kernels in every format: `cargo bench --bench matvec -- [FORMAT...]`.
//!
//! One column as in decoding, with both kinds of activations, and 64 as in prefill. GB/s counts the weights' bytes, once.
#![allow(clippy::print_stdout, reason = "a bench speaks on stdout")]
use brooklet::Result;
use brooklet::format::{DType, repack};
use brooklet::gpu::{AdapterChoice, Gpu, Recording, Tensor};
use brooklet::ops::{ActivationType, Epilogue, FRAME, Linear, MatMul, Part, Variant};
use pollster::block_on;
use std::time::Instant;

/// Products in one submission, and submissions.
const REPEAT: usize = 10;
const RUNS: usize = 7;

fn main() -> Result<()> {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let gpu = block_on(Gpu::open(AdapterChoice::Best))?;
    let variant = Variant::of(&gpu);
    println!("{} ({}), {} lanes, {variant:?}", gpu.name, gpu.backend, gpu.tier.lanes());
    println!("format  shape      activations columns      min   median    GB/s");
    for dtype in DType::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == dtype.name()) {
            continue;
        }
        let product = [(Epilogue::Store, dtype)];
        let op = block_on(MatMul::new(&gpu, &product, &product, variant))?;
        let activations = ActivationType::Int8;
        let int8 = block_on(MatMul::new(&gpu, &product, &[], Variant { activations, ..variant }))?;
        for (rows, cols) in [(2048, 2048), (1536, 576)] {
            if cols % dtype.block_len() == 0 {
                let w = matrix(&gpu, dtype, rows, cols)?;
                for (op, activations, columns) in
                    [(&op, "f32", 1), (&int8, "int8", 1), (&op, "f32", 64)]
                {
                    if activations == "int8" && !ActivationType::Int8.suits(dtype) {
                        continue;
                    }
                    let mut ms = block_on(time(&gpu, op, &w, columns))?;
                    ms.sort_by(f64::total_cmp);
                    let gb_s = w.bytes() as f64 / ms[0] / 1e6;
                    println!(
                        "{:7} {:10} {activations:11} {columns:7} {:8.3} {:8.3} {gb_s:7.2}",
                        dtype.name(),
                        format!("{rows}x{cols}"),
                        ms[0],
                        ms[RUNS / 2]
                    );
                }
            }
        }
    }
    Ok(())
}

/// Every byte is 0x2c: an ordinary number in each format.
fn matrix(gpu: &Gpu, dtype: DType, rows: usize, cols: usize) -> Result<Linear> {
    let bytes = vec![0x2c; rows * cols / dtype.block_len() * dtype.block_bytes()];
    let packed = repack(dtype, &bytes, cols);
    let quants = Tensor::upload(gpu, "w.quants", &[packed.quants.len()], &packed.quants)?;
    let scales = Tensor::upload(gpu, "w.scales", &[packed.scales.len()], &packed.scales)?;
    let parts = vec![Part { dtype, row0: 0, rows, quants, scales }];
    Ok(Linear { label: "w".to_owned(), rows, cols, parts })
}

/// Milliseconds of one product, for each run.
async fn time(gpu: &Gpu, op: &MatMul, w: &Linear, columns: usize) -> Result<Vec<f64>> {
    let x = Tensor::upload(gpu, "x", &[columns, w.cols], &vec![0.5f32; columns * w.cols])?;
    let y = Tensor::zeros(gpu, "y", &[columns, w.rows])?;
    let frame = Tensor::upload(gpu, "frame", &[FRAME], &[0, columns as u32, 1, 0])?;
    let mut recording = Recording::default();
    for _ in 0..REPEAT {
        op.record(&mut recording, "bench", Epilogue::Store, [&frame, &x, &y], w, None)?;
    }
    let program = recording.finish(gpu)?;
    program.run(gpu, &[]);
    frame.read::<u32>(gpu).await?;
    let mut ms = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        program.run(gpu, &[]);
        frame.read::<u32>(gpu).await?;
        ms.push(start.elapsed().as_secs_f64() * 1e3 / REPEAT as f64);
    }
    Ok(ms)
}
