//! Which tokens end a text or a turn. Files are often wrong about it, so the names that models give such tokens
//! count beside the keys, as in llama.cpp.
use super::Vocab;
use super::vocab::{CONTROL, NORMAL, USER_DEFINED};

/// The names of tokens that end, whatever type a vocabulary gives them.
const ENDS: [&str; 34] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|end|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "</s>",
    "[e~[",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    // What follows these is another file, or another place in one.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "<|eot|>",
];

/// Those of them that are text where they are typed as normal: in Qwen 2's vocabulary `</s>` is markup of a page.
const TEXT_IF_NORMAL: [&str; 2] = ["</s>", "<|eot|>"];

/// The ids that end a text or a turn, in order. Their types are put right, so that they are found in a text and
/// print nothing.
pub(super) fn ends(vocab: &mut Vocab) -> Vec<u32> {
    let Vocab { tokens, types, .. } = vocab;
    let mut ends = Vec::new();
    for (id, (text, kind)) in tokens.iter().zip(types.iter_mut()).enumerate() {
        let text = text.as_str();
        let plain = *kind == NORMAL && TEXT_IF_NORMAL.contains(&text);
        if ENDS.contains(&text) && !plain {
            *kind = CONTROL;
            ends.push(id as u32);
        }
    }
    ends.extend([vocab.eos, vocab.eot, vocab.eom].into_iter().chain(vocab.fim).flatten());
    ends.sort_unstable();
    ends.dedup();
    let end = |name: &str| ends.iter().copied().find(|&id| tokens[id as usize] == name);
    let call = end("<|call|>").or(end("<|calls|>")).is_some();
    // A message ends, and the turn goes on: gpt-oss and Solar Open.
    let goes_on = call && (end("<|return|>").is_some() || end("<|flush|>").is_some());
    let message = end("<|end|>").filter(|_| goes_on);
    // Gemma 4's `</s>` is text.
    let strike = end("</s>").filter(|_| end("<|tool_response>").is_some());
    for (id, kind) in [(message, USER_DEFINED), (strike, NORMAL)] {
        if let Some(id) = id {
            types[id as usize] = kind;
            ends.retain(|&end| end != id);
        }
    }
    ends
}
