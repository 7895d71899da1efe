use crate::ops::NllParams;

/// The twin of `shaders/nll.wgsl`.
pub fn nll(params: NllParams, logits: &[f32], targets: &[u32], nll: &mut [f32]) {
    let rows = logits.chunks_exact(params.vocab as usize);
    for ((row, &target), nll) in rows.zip(targets).zip(nll) {
        let target = f64::from(row[target as usize]);
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let highest = f64::from(highest);
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - highest).exp()).sum();
        *nll = (sum.ln() + highest - target) as f32;
    }
}
