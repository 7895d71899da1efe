//! What holds an output to rules, as a generation asks it.
use crate::Result;

/// Rules that an output is held to: asked before every token of a [`Generation`](super::Generation) which may come, and
/// told which came. `grammar` makes them from JSON schemas, regular expressions and grammars.
pub trait Constraint: Send {
    /// Sets the bits of the ids that may not come next, `[ceil(V/32)]` words of 32 ids, the lowest bit first. Bits that
    /// are set stay so. Ids that end a text may come where the output may end.
    fn ban(&mut self, banned: &mut [u32]) -> Result<()>;

    /// Takes the token that came.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Takes back the last so many tokens.
    fn roll_back(&mut self, tokens: usize) -> Result<()>;

    /// The tokens that have to come next, one after another, as far as there is no choice.
    fn forced(&mut self) -> Vec<u32> {
        Vec::new()
    }
}
