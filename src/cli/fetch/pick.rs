//! Which files of a repository are one model, and which of them is meant. By their paths alone.
use brooklet::{Error, Result};

/// The types of weights that are taken where none is named, as llama.cpp takes them.
const PREFERRED: [&str; 2] = ["Q4_K_M", "Q8_0"];

/// The files of one model, in order; several if it is split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) paths: Vec<String>,
}

impl Group {
    pub(super) fn first(&self) -> &str {
        &self.paths[0]
    }

    /// Its path without what counts its files: `x-Q8_0` of `x-Q8_0-00001-of-00003.gguf`.
    fn stem(&self) -> &str {
        let stem = self.first().strip_suffix(".gguf").unwrap_or(self.first());
        shard(self.first()).map_or(stem, |shard| shard.stem)
    }

    /// What stands behind the colon to mean this one: its type of weights, or its path if that says nothing.
    pub(super) fn tag(&self, all: &[Self]) -> String {
        let words = self.stem().rsplit(['-', '.', '/']);
        let tag = words.map(str::to_ascii_uppercase).find(|word| is_type(word));
        tag.filter(|tag| pick(all, Some(tag)) == Some(self))
            .unwrap_or_else(|| self.first().to_owned())
    }

    fn has(&self, tag: &str) -> bool {
        let (stem, tag) = (self.stem().to_ascii_uppercase(), tag.to_ascii_uppercase());
        stem.match_indices(&tag).any(|(at, _)| {
            let before = stem[..at].chars().next_back();
            let after = stem[at + tag.len()..].chars().next();
            !before.is_some_and(char::is_alphanumeric)
                && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    }
}

/// A file of a split model, by its name: `STEM-00001-of-00003.gguf`.
struct Shard<'a> {
    stem: &'a str,
    no: u32,
    count: u32,
    width: usize,
}

fn shard(path: &str) -> Option<Shard<'_>> {
    let (rest, count) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |text: &str| {
        let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (width, no, count) = (no.len(), number(no)?, number(count)?);
    (1..=count).contains(&no).then_some(Shard { stem, no, count, width })
}

/// The paths of all files of the model that `path` is a file of.
pub(super) fn siblings(path: &str) -> Vec<String> {
    let Some(Shard { stem, count, width, .. }) = shard(path) else { return vec![path.to_owned()] };
    (1..=count).map(|no| format!("{stem}-{no:0width$}-of-{count:0width$}.gguf")).collect()
}

/// Whether a part of a name is a type of weights: `Q4_K_M`, `IQ2_XXS`, `F16`, `BF16`, `MXFP4`.
fn is_type(word: &str) -> bool {
    let rest = ["IQ", "TQ", "Q", "BF", "F", "MXFP", "NVFP"].iter();
    rest.filter_map(|start| word.strip_prefix(start)).any(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// The models among `paths`, in order. What goes beside a model (a projector of images, statistics) is none.
pub(super) fn groups<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<Group> {
    let mut paths: Vec<&str> = paths.into_iter().filter(|path| path.ends_with(".gguf")).collect();
    paths.sort_unstable();
    let first = |path: &&&str| shard(path).is_none_or(|shard| shard.no == 1);
    paths.iter().filter(first).map(|path| Group { paths: siblings(path) }).collect()
}

fn is_beside(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.contains("mmproj") || name.contains("imatrix")
}

/// The one that is meant.
pub(super) fn pick<'a>(all: &'a [Group], tag: Option<&str>) -> Option<&'a Group> {
    if let Some(path) = tag.filter(|tag| tag.to_ascii_lowercase().ends_with(".gguf")) {
        return all.iter().find(|group| group.paths.iter().any(|one| one == path));
    }
    let models = || all.iter().filter(|group| !is_beside(group.first()));
    let tagged = |tag: &str| {
        let found = models().filter(|group| group.has(tag));
        found.min_by_key(|group| group.first().len())
    };
    match tag {
        Some(tag) => tagged(tag),
        None => PREFERRED.iter().find_map(|tag| tagged(tag)).or_else(|| models().next()),
    }
}

/// Whether no other file of the repository would be taken where no type is named.
pub(super) fn is_first_choice(group: &Group) -> bool {
    group.has(PREFERRED[0]) && !is_beside(group.first())
}

/// The same, or what there is instead, of which `size` tells how large it is.
pub(super) fn expect<'a>(
    all: &'a [Group],
    tag: Option<&str>,
    name: &dyn std::fmt::Display,
    size: impl Fn(&Group) -> String,
) -> Result<&'a Group> {
    pick(all, tag).ok_or_else(|| {
        let models = all.iter().filter(|group| !is_beside(group.first()));
        let each: Vec<_> = models.map(|one| format!("{} ({})", one.tag(all), size(one))).collect();
        let detail = match (each.is_empty(), tag) {
            (true, _) => "there is no GGUF file in this repository; the same model in GGUF is often in another, \
                          whose name ends in -GGUF"
                .to_owned(),
            (false, tag) => {
                format!("there is no {}; there are: {}", tag.unwrap_or_default(), each.join(", "))
            }
        };
        Error::Fetch { name: name.to_string(), detail }
    })
}

#[cfg(test)]
mod tests {
    use super::{Group, groups, pick};

    const PATHS: [&str; 9] = [
        "README.md",
        "mmproj-model-Q8_0.gguf",
        "Model-UD-Q4_K_M.gguf",
        "Model-Q4_K_M.gguf",
        "Model-Q4_K_S.gguf",
        "model-iq4_nl.gguf",
        "F16/Model-F16-00001-of-00002.gguf",
        "F16/Model-F16-00002-of-00002.gguf",
        "Model.Q8_0.gguf",
    ];

    fn first(paths: &[&str], tag: Option<&str>) -> Option<String> {
        pick(&groups(paths.iter().copied()), tag).map(|group| group.first().to_owned())
    }

    #[test]
    fn a_type_is_a_whole_word_of_a_name() {
        let found = |tag| first(&PATHS, Some(tag)).unwrap_or_default();
        assert_eq!(found("q4_k_m"), "Model-Q4_K_M.gguf", "the shorter name");
        assert_eq!(found("UD-Q4_K_M"), "Model-UD-Q4_K_M.gguf");
        assert_eq!(found("Q8_0"), "Model.Q8_0.gguf", "no projector of images");
        assert_eq!(found("IQ4_NL"), "model-iq4_nl.gguf");
        assert_eq!(found("F16"), "F16/Model-F16-00001-of-00002.gguf");
        assert_eq!(found("mmproj-model-Q8_0.gguf"), "mmproj-model-Q8_0.gguf", "by its full name");
        for none in ["Q4_K", "Q4_NL", "Q2_K", "Model-Q4_K_M.GGUF", "00001"] {
            assert_eq!(found(none), "", "{none}");
        }
    }

    #[test]
    fn without_a_type_it_is_the_one_that_llama_cpp_takes() {
        assert_eq!(first(&PATHS, None).as_deref(), Some("Model-Q4_K_M.gguf"));
        assert_eq!(first(&["a-F16.gguf", "a-Q8_0.gguf"], None).as_deref(), Some("a-Q8_0.gguf"));
        assert_eq!(first(&["b-F16.gguf", "a-Q2_K.gguf"], None).as_deref(), Some("a-Q2_K.gguf"));
        assert_eq!(first(&["README.md"], None), None);
    }

    #[test]
    fn a_split_model_is_all_of_its_files() {
        let all = groups(PATHS);
        let split = pick(&all, Some("F16")).map(|group| group.paths.clone());
        let files = [PATHS[6], PATHS[7]].map(str::to_owned);
        assert_eq!(split, Some(files.to_vec()));
        let odd = groups(["a-00003-of-00002.gguf", "a-1-of-2.gguf"]);
        assert_eq!(odd.len(), 2, "no files of split models: {odd:?}");
    }

    #[test]
    fn the_tag_of_a_model_leads_to_it() {
        let all = groups(PATHS);
        for group in &all {
            let tag = group.tag(&all);
            assert_eq!(pick(&all, Some(&tag)), Some(group), "{tag}");
        }
        let tags: Vec<_> = all.iter().map(|group| group.tag(&all)).collect();
        assert!(
            tags.contains(&"Q4_K_M".to_owned()) && tags.contains(&"F16".to_owned()),
            "{tags:?}"
        );
        let plain = [Group { paths: vec!["ggml-model.gguf".into()] }];
        assert_eq!(plain[0].tag(&plain), "ggml-model.gguf");
    }
}
