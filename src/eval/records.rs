//! StreamEval, after figure 8 of the paper, whose own text was never released: a record of lines goes by, and every
//! ten lines the stream is asked for the number in a line some way back.
use crate::model::Policy;
use crate::session::Session;
use crate::text::{SamplerSettings, Tokenizer, random};
use crate::{Error, Result};
use serde::Serialize;

/// Numbers are 1 to this, as in the paper's picture.
const LARGEST: u32 = 50_000;
/// Tokens that a ring must be able to take back: an answer, and what the device has chosen ahead of it.
pub const ANSWER_ROOM: usize = 96;

/// A record of lines; the same for the same seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    numbers: Vec<u32>,
}

impl Records {
    /// What stands before the lines.
    pub const HEAD: &'static str = "Below is a record of lines I want you to remember.\n";

    /// So many lines.
    pub fn new(seed: u64, lines: usize) -> Self {
        Self { numbers: (0..lines as u64).map(|i| random(seed, i) % LARGEST + 1).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The number in line `i`.
    pub fn number(&self, i: usize) -> u32 {
        self.numbers[i]
    }

    /// Line `i`.
    pub fn line(&self, i: usize) -> String {
        format!("The REGISTER_CONTENT in line {i} is <{}>\n", self.numbers[i])
    }

    /// What is asked of line `i`, up to where the answer begins.
    pub fn question(&self, i: usize) -> String {
        format!("Query: The REGISTER_CONTENT in line {i} is")
    }

    /// The answer to it.
    pub fn answer(&self, i: usize) -> String {
        format!(" <{}>\n", self.numbers[i])
    }
}

/// How often what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Lines back: after line i it is asked for line i - distance.
    pub distance: usize,
    /// Lines between two questions.
    pub every: usize,
    /// The most questions.
    pub questions: usize,
}

/// One question and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// The line that was asked for.
    pub line: usize,
    /// Tokens from the start of that line to the start of the answer.
    pub tokens: u64,
    /// Whether all of the line was still in the window, to the end of the answer.
    pub held: bool,
    /// The number in it.
    pub expected: u32,
    /// What the model said, to the first `>`.
    pub answer: String,
    /// Whether that is the number.
    pub right: bool,
    /// Digits of the number, as tokens; and those that were the likeliest when the digits before were the true ones.
    pub digits: usize,
    /// Of them, the ones that were likeliest.
    pub digits_right: usize,
}

/// Streams the record through a session that holds nothing yet. `told` hears of every line and of the question after
/// it, if any; its false ends the stream.
pub async fn stream(
    session: &mut Session,
    tokenizer: &Tokenizer,
    records: &Records,
    plan: Plan,
    mut told: impl FnMut(usize, Option<Question>) -> bool,
) -> Result<()> {
    if session.policy() == Policy::Recompute {
        return Err(Error::Usage(
            "a cache of policy recompute cannot take an answer back; streaming, window and dense can"
                .into(),
        ));
    }
    let mut ids = tokenizer.encode_first(Records::HEAD)?;
    let mut starts = Vec::with_capacity(records.len());
    let mut asked = 0;
    for line in 0..records.len() {
        starts.push(session.position() + ids.len() as u64);
        ids.extend(tokenizer.encode(&records.line(line), false)?);
        let due = line >= plan.distance && (line - plan.distance).is_multiple_of(plan.every);
        let question = match due && asked < plan.questions {
            true => {
                let back = line - plan.distance;
                let question = (back, starts[back]);
                asked += 1;
                Some(ask(session, tokenizer, records, std::mem::take(&mut ids), question).await?)
            }
            false => None,
        };
        if !told(line, question) || asked == plan.questions {
            break;
        }
    }
    Ok(())
}

/// Asks for a line that began at token `start`, after what was not fed yet.
async fn ask(
    session: &mut Session,
    tokenizer: &Tokenizer,
    records: &Records,
    mut before: Vec<u32>,
    (line, start): (usize, u64),
) -> Result<Question> {
    let question = tokenizer.encode(&records.question(line), false)?;
    let both = records.question(line) + &records.answer(line);
    let both = tokenizer.encode(&both, false)?;
    // As the tokens of the whole text where it can be cut there, else as those of the answer alone.
    let truth = match both.strip_prefix(&question[..]) {
        Some(rest) => rest.to_vec(),
        None => tokenizer.encode(&records.answer(line), false)?,
    };
    before.extend(&question);
    session.feed(&before).await?;
    let asked_at = session.position();
    let said = greedy(session, tokenizer, truth.len() + 2, &before).await?;
    let (mut digits, mut digits_right) = (0, 0);
    for &token in &truth {
        if tokenizer.bytes(token).iter().any(u8::is_ascii_digit) {
            let logits = session.logits().await?;
            let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            digits += 1;
            digits_right += usize::from(likeliest == Some(token as usize));
        }
        session.feed(&[token]).await?;
    }
    let reach = u64::from(session.cache().geometry().window);
    Ok(Question {
        line,
        tokens: asked_at - start,
        held: start + reach >= session.position(),
        expected: records.number(line),
        right: said.trim() == records.answer(line).trim(),
        answer: said.trim().to_owned(),
        digits,
        digits_right,
    })
}

/// What the model says, to the first `>` or so many tokens; then it is taken back, as if it had not been said.
async fn greedy(
    session: &mut Session,
    tokenizer: &Tokenizer,
    most: usize,
    before: &[u32],
) -> Result<String> {
    let settings = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let mut generation = session.generate(settings, tokenizer.eog())?;
    // Little is chosen in vain beyond the end of an answer.
    generation.submit_together(4);
    let (mut said, mut given) = (Vec::new(), 0);
    while given < most as u64 && !said.contains(&b'>') {
        let Some(token) = generation.next(session).await? else { break };
        given += 1;
        said.extend(tokenizer.bytes(token));
    }
    let last = before.last().copied().unwrap_or_default();
    session.rewind(given, last).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::Records;

    #[test]
    fn lines_are_those_of_the_picture_and_the_same_for_a_seed() {
        let records = Records::new(3, 500);
        assert_eq!(records, Records::new(3, 500));
        assert_ne!(records, Records::new(4, 500));
        // a longer record begins with the shorter
        assert_eq!(Records::new(3, 900).line(499), records.line(499));
        let number = records.number(17);
        assert!((0..500).all(|i| (1..=50_000).contains(&records.number(i))));
        let line = format!("The REGISTER_CONTENT in line 17 is <{number}>\n");
        assert_eq!(records.line(17), line);
        assert_eq!(records.question(17) + &records.answer(17), format!("Query: {line}"));
        let mut numbers: Vec<_> = (0..500).map(|i| records.number(i)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() > 480, "{} different ones", numbers.len());
    }
}
