//! Layers that do not attend, a token at a time, as their papers write them.
use super::Oracle;

/// What such a layer keeps.
#[derive(Clone, Default)]
pub(super) struct State {
    /// What entered its convolution last, the oldest first.
    recent: Vec<Vec<f64>>,
}

impl Oracle {
    /// A causal convolution over the channels of this token and those before it; `weights`: a row of taps a channel.
    fn convolved(&mut self, layer: usize, tensor: &str, z: Vec<f64>) -> Vec<f64> {
        let taps = self.config.conv_taps;
        let recent = &mut self.states[layer].recent;
        recent.push(z);
        if recent.len() > taps {
            recent.remove(0);
        }
        let (recent, missing) =
            (&self.states[layer].recent, taps - self.states[layer].recent.len());
        let weights = self.weight(&format!("blk.{layer}.{tensor}.weight"));
        let channel = |(i, row): (usize, &[f32])| {
            let seen = row[missing..].iter().zip(recent);
            seen.map(|(&tap, z)| f64::from(tap) * z[i]).sum()
        };
        weights.chunks_exact(taps).enumerate().map(channel).collect()
    }

    /// LFM2's gated short convolution.
    pub(super) fn short_conv(&mut self, layer: usize, xn: &[f64]) -> Vec<f64> {
        let name = |part: &str| format!("blk.{layer}.shortconv.{part}");
        let all = self.linear(&name("in_proj"), xn);
        let [b, c, u] = [0, 1, 2].map(|third| &all[third * xn.len()..][..xn.len()]);
        let z = b.iter().zip(u).map(|(b, u)| b * u).collect();
        let y = self.convolved(layer, "shortconv.conv", z);
        let gated: Vec<f64> = c.iter().zip(y).map(|(c, y)| c * y).collect();
        self.linear(&name("out_proj"), &gated)
    }
}
