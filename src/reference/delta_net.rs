use crate::ops::DeltaNetParams;

/// The twin of `shaders/delta_net.wgsl`: of tokens from the first of a stream on. `rows` [T, width]: q, k, v, alpha, beta;
/// `terms` [H, 2]; gives o [T, H, DV], and S [H, DK, DV] after the last of them.
pub fn delta_net(params: DeltaNetParams, rows: &[f32], terms: &[f32]) -> [Vec<f32>; 2] {
    let [g, h, dk, dv, width] =
        [params.key_heads, params.heads, params.key_dim, params.value_dim, params.width]
            .map(|n| n as usize);
    let unit = |row: &[f32]| {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let length = (row.iter().map(|x| x * x).sum::<f64>() + f64::from(params.eps)).sqrt();
        row.into_iter().map(|x| x / length).collect::<Vec<_>>()
    };
    let mut s = vec![0.0f64; h * dk * dv];
    let mut out = Vec::new();
    for row in rows.chunks_exact(width) {
        let (q, rest) = row.split_at(g * dk);
        let (k, rest) = rest.split_at(g * dk);
        let (v, gates) = rest.split_at(h * dv);
        for (head, s) in s.chunks_exact_mut(dk * dv).enumerate() {
            let [q, k] = [q, k].map(|all| unit(&all[head % g * dk..][..dk]));
            let x = f64::from(gates[head]) + f64::from(terms[2 * head + 1]);
            let decay = (f64::from(terms[2 * head]) * x.exp().ln_1p()).exp();
            let beta = 1.0 / (1.0 + (-f64::from(gates[h + head])).exp());
            s.iter_mut().for_each(|s| *s *= decay);
            for j in 0..dv {
                let along: f64 = (0..dk).map(|i| s[i * dv + j] * k[i]).sum();
                let change = beta * (f64::from(v[head * dv + j]) - along);
                (0..dk).for_each(|i| s[i * dv + j] += k[i] * change);
                let o: f64 = (0..dk).map(|i| s[i * dv + j] * q[i]).sum();
                out.push((o / (dk as f64).sqrt()) as f32);
            }
        }
    }
    [out, s.into_iter().map(|s| s as f32).collect()]
}
