use super::matmul;
use crate::ops::Epilogue;

/// The twin of `shaders/experts.wgsl` on plain weights. `x`: [T, C], or [T, K, C] where results are added; `w`: [E, M, C];
/// `bias`: [E, M] or nothing; `chosen`: [T, K], experts and their shares; `y`: [T, K, width], or [T, width].
pub fn experts(
    epilogue: Epilogue,
    [x, w, bias]: [&[f32]; 3],
    [cols, each, used, width]: [usize; 4],
    chosen: &[(u32, f32)],
    y: &mut [f32],
) {
    for (i, &(expert, share)) in chosen.iter().enumerate() {
        let (expert, token) = (expert as usize, i / used);
        let w = &w[expert * each * cols..][..each * cols];
        let bias = if bias.is_empty() { bias } else { &bias[expert * each..][..each] };
        if epilogue == Epilogue::Add {
            let mut products = vec![0.0; each];
            matmul(Epilogue::Store, [&x[i * cols..][..cols], w, bias], cols, each, &mut products);
            let y = &mut y[token * width..][..each];
            y.iter_mut().zip(products).for_each(|(y, product)| *y += share * product);
        } else {
            let (x, y) = (&x[token * cols..][..cols], &mut y[i * width..][..width]);
            matmul(epilogue, [x, w, bias], cols, width, y);
        }
    }
}
