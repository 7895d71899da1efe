//! Texts that end a stream.
use crate::text::StopTexts;
use proptest::prelude::*;

/// What a stream of `pieces` shows, piece by piece, and whether it was ended.
fn stopped(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
    let mut stop = StopTexts::new(stops.iter().map(|&s| s.to_owned()));
    let mut shown = Vec::new();
    for piece in pieces {
        let (text, met) = stop.push(piece);
        shown.push(text);
        if met {
            return (shown, true);
        }
    }
    shown.push(stop.finish());
    (shown, false)
}

#[test]
fn stop_texts_end_a_stream_wherever_tokens_cut_them() {
    assert_eq!(stopped(&["\n\n"], &["a\n", "\nb"]), (vec!["a".into(), "".into()], true));
    // what only looked like one is shown after all
    let shown = vec!["a".to_owned(), "\nb".into(), "".into()];
    assert_eq!(stopped(&["\n\n"], &["a\n", "b"]), (shown, false));
    let shown = vec!["x".to_owned(), "".into(), "ab".into()];
    assert_eq!(stopped(&["abc"], &["xa", "b"]), (shown, false));
    // the first that begins, not the first of the list; an empty one never
    assert_eq!(stopped(&["", "cd", "bcd"], &["abcd"]), (vec!["a".into()], true));
    // a beginning that begins anew
    assert_eq!(stopped(&["aab"], &["aa", "ab", "c"]).0.concat(), "a");
    assert_eq!(stopped(&["é!"], &["né", "!"]), (vec!["n".into(), "".into()], true));
    assert_eq!(stopped(&[], &["ab"]), (vec!["ab".into(), "".into()], false));
}

proptest! {
    #[test]
    fn a_stop_text_is_found_exactly_where_it_is(
        text in "[ab\u{e9}]{0,30}", stop in "[ab\u{e9}]{1,4}", cuts in prop::collection::vec(0usize..30, 0..8)
    ) {
        let letters: Vec<char> = text.chars().collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(letters.len())).collect();
        cuts.extend([0, letters.len()]);
        cuts.sort_unstable();
        let pieces: Vec<String> = cuts.windows(2).map(|c| letters[c[0]..c[1]].iter().collect()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (shown, ended) = stopped(&[&stop], &pieces);
        prop_assert_eq!(shown.concat(), text.split(&stop).next().unwrap());
        prop_assert_eq!(ended, text.contains(&stop));
    }
}
