//! Models by name, as a user has them: from a stand-in for the hub, with everything that goes wrong on the way.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
mod here;
mod hub;

use assert_cmd::Command;
use hub::{Faults, Hub, TINY, long, sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_brooklet");
const FILE: &str = "tiny-Q8_0.gguf";
const NAME: &str = "hf:u/r";

/// A user with an empty cache folder.
struct User {
    folder: TempDir,
    endpoint: String,
}

impl User {
    fn of(hub: &Hub) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), endpoint: hub.endpoint.clone() }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            ("BROOKLET_CACHE", path("cache")),
            ("HF_HUB_CACHE", path("huggingface")),
            ("HF_ENDPOINT", self.endpoint.clone()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "1".to_owned()),
        ]
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        for name in ["HF_TOKEN", "HF_HOME", "BROOKLET_OFFLINE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.envs(self.environment()).args(args).timeout(Duration::from_secs(60));
        command
    }

    /// Exit code, stdout, stderr.
    fn says(&self, args: &[&str]) -> (i32, String, String) {
        outcome(&mut self.command(args))
    }

    /// Where a file of the repository is or would be.
    fn place(&self, file: &str) -> PathBuf {
        self.folder.path().join("cache/models/hf/u/r").join(file)
    }

    /// The bytes of it that have come, whole or in part.
    fn has(&self, file: &str) -> u64 {
        let part = self.place(&format!("{file}.part"));
        [self.place(file), part]
            .iter()
            .find_map(|path| path.metadata().ok())
            .map_or(0, |file| file.len())
    }

    #[track_caller]
    fn pulls(&self, hub: &Hub, file: &str) -> String {
        let (code, stdout, stderr) = self.says(&["pull", NAME]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(Path::new(stdout.trim_end()), self.place(file));
        let found = std::fs::read(self.place(file)).unwrap();
        assert!(found == hub.state().files[file], "{file} is not what the hub has: {stderr}");
        self.is_tidy();
        stderr
    }

    /// Nothing is left beside models and what is known of them.
    #[track_caller]
    fn is_tidy(&self) {
        for file in here::files(&self.folder.path().join("cache")) {
            let end = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            assert!(!["part", "lock"].contains(&end.as_str()), "{}", file.display());
            assert!(!file.to_string_lossy().contains(".part"), "{}", file.display());
        }
    }

    /// Fails with a sentence that says all of this.
    #[track_caller]
    fn fails(&self, messages: &[&str]) -> String {
        let (code, stdout, stderr) = self.says(&["pull", NAME]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        for message in messages {
            assert!(stderr.contains(message), "{message:?} is not in {stderr}");
        }
        assert!(!stderr.contains("panicked") && !stderr.contains("secret"), "{stderr}");
        assert!(!self.place(FILE).exists(), "{stderr}");
        if self.has(FILE) == 0 {
            self.is_tidy();
        }
        eprint!("{stderr}");
        stderr
    }
}

fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn faulty(faults: Faults) -> (Hub, User) {
    let hub = Hub::new(&[(FILE, &long(400_000))]).with(faults);
    let user = User::of(&hub);
    (hub, user)
}

#[test]
fn a_model_is_fetched_once_and_runs() {
    let hub = Hub::new(&[("README.md", b"# r"), (FILE, TINY)]);
    let user = User::of(&hub);
    let run = |name: &str| {
        user.says(&[
            "run",
            "-m",
            name,
            "-p",
            "Sinks stay.",
            "-n",
            "8",
            "--temp",
            "0",
            "--tune",
            "off",
        ])
    };
    let (code, stdout, stderr) = run(NAME);
    assert_eq!(code, 0, "{stderr}");
    let tiny = run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf"));
    assert_eq!(stdout, tiny.1);
    let asked = hub.state().requests.len();
    assert_eq!(run(NAME).1, tiny.1);
    for args in
        [["inspect", NAME], ["inspect", "hf:u/r:q8_0"], ["inspect", "hf:u/r:tiny-Q8_0.gguf"]]
    {
        let (code, _, stderr) = user.says(&args);
        assert_eq!(code, 0, "{stderr}");
    }
    assert_eq!(hub.state().requests.len(), asked, "what is here is not asked for again");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let hub = Hub::new(&[(FILE, TINY)]);
    let user = User::of(&hub);
    let (code, _, stderr) = outcome(user.command(&["pull", NAME]).env("HF_TOKEN", "hf_secret"));
    assert_eq!(code, 0, "{stderr}");
    let requests = hub.state().requests.clone();
    assert_eq!(requests.iter().filter(|request| request.to_hub).count(), 3);
    assert_eq!(requests.iter().filter(|request| !request.to_hub).count(), 1);
    for request in requests {
        let told = request.headers.get("authorization").map(String::as_str);
        assert_eq!(told, request.to_hub.then_some("Bearer hf_secret"), "{request:?}");
    }
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let (hub, user) = faulty(Faults { cuts: vec![100_000, 150_001], ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(
        told.contains("the connection to 127.0.0.1 broke at 97.66 KiB of 390.62 KiB"),
        "{told}"
    );
    let ranges: Vec<_> = hub
        .downloads()
        .iter()
        .map(|one| one.headers.get("range").cloned().unwrap_or_default())
        .collect();
    assert_eq!(ranges, ["", "bytes=100000-", "bytes=250001-"]);
    assert_eq!(hub.state().sent, 400_000);
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let (hub, user) = faulty(Faults { stalls: vec![100_000], ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("broke at 97.66 KiB of 390.62 KiB (timeout"), "{told}");
    assert_eq!(hub.state().sent, 400_000);
}

#[test]
fn a_connection_that_breaks_again_and_again_is_given_up_and_what_came_kept() {
    let (hub, user) = faulty(Faults { cuts: vec![50_000; 6], ..Faults::default() });
    user.fails(&[
        "broke at 292.97 KiB of 390.62 KiB",
        "did so 6 times",
        "292.97 KiB are kept, and the same command",
    ]);
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("going on at 292.97 KiB"), "{told}");
    assert_eq!(hub.state().sent, 400_000);
}

#[test]
fn without_a_sha256_the_etag_tells_whose_part_it_is() {
    let faults = || Faults { cuts: vec![50_000; 6], no_sha256: true, ..Faults::default() };
    let (hub, user) = faulty(faults());
    user.fails(&["292.97 KiB"]);
    user.pulls(&hub, FILE);
    assert_eq!(hub.state().sent, 400_000);
    // Nothing tells whether it is the same file still.
    let (hub, user) = faulty(Faults { no_etag: true, ..faults() });
    user.fails(&["292.97 KiB"]);
    user.pulls(&hub, FILE);
    assert_eq!(hub.state().sent, 700_000);
    // It is not.
    let (hub, user) = faulty(faults());
    user.fails(&["292.97 KiB"]);
    hub.state().files.insert(FILE.into(), long(390_000));
    user.pulls(&hub, FILE);
    assert_eq!(hub.state().sent, 690_000);
    // What is on the disk is not what came.
    let (hub, user) = faulty(faults());
    user.fails(&["292.97 KiB"]);
    let part = user.place("tiny-Q8_0.gguf.part");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    user.pulls(&hub, FILE);
    assert_eq!(hub.state().sent, 700_000);
}

#[test]
fn a_part_that_is_damaged_is_seen_at_the_end() {
    let (hub, user) = faulty(Faults { cuts: vec![50_000; 6], ..Faults::default() });
    user.fails(&["are kept"]);
    let part = user.place("tiny-Q8_0.gguf.part");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("what was kept from before is damaged; starting anew"), "{told}");
}

#[test]
fn a_file_that_changed_meanwhile_begins_anew() {
    let (hub, user) = faulty(Faults { cuts: vec![50_000; 6], ..Faults::default() });
    user.fails(&["are kept"]);
    // The hub's tree is old, its files are not: what If-Range is for.
    hub.state().faults.no_sha256 = true;
    hub.state().files.insert(FILE.into(), long(350_000));
    user.pulls(&hub, FILE);
    assert_eq!(hub.state().sent, 650_000);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let (hub, user) = faulty(Faults { cuts: vec![100_000], no_ranges: true, ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("127.0.0.1 gives no parts of files; starting anew"), "{told}");
    assert_eq!(hub.state().sent, 500_000);
}

#[test]
fn a_server_that_gives_another_range_is_not_believed() {
    let (hub, user) =
        faulty(Faults { cuts: vec![100_000], wrong_range: true, ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("not what comes after byte 100000; starting anew"), "{told}");
    let (_hub, user) =
        faulty(Faults { cuts: vec![1000; 9], wrong_range: true, ..Faults::default() });
    user.fails(&["not what comes after byte 1000", "did so 3 times"]);
}

#[test]
fn what_is_damaged_on_the_way_is_not_kept() {
    let (hub, user) = faulty(Faults { damaged: true, ..Faults::default() });
    let wanted = sha256(&hub.state().files[FILE]);
    user.fails(&["what came is damaged: its sha256 is", &wanted, "It is not kept"]);
    assert_eq!(user.has(FILE), 0);
}

#[test]
fn each_refusal_says_what_to_do() {
    for (status, messages) in [
        (401, ["wants to know who asks (401)", "set HF_TOKEN"]),
        (403, ["refuses this (403)", "accept its terms"]),
        (404, ["has nothing of this name (404)", "check how it is spelled"]),
        (418, ["answers 418", "instead of giving the file"]),
    ] {
        let (_hub, user) = faulty(Faults { hub_status: Some(status), ..Faults::default() });
        user.fails(&messages);
        user.fails(&[NAME]);
    }
    let (_hub, user) = faulty(Faults { hub_status: Some(401), ..Faults::default() });
    let (_, _, told) = outcome(user.command(&["pull", NAME]).env("HF_TOKEN", "hf_secret"));
    assert!(
        told.contains("does not take the token in HF_TOKEN (401)") && !told.contains("hf_secret"),
        "{told}"
    );
    let (_hub, user) = faulty(Faults { statuses: vec![403], ..Faults::default() });
    user.fails(&["127.0.0.1 refuses to give the file (403)"]);
    let (_hub, user) =
        faulty(Faults { statuses: vec![429], retry_after: Some(3600), ..Faults::default() });
    user.fails(&["asked too often (429) and wants 3600 s of rest"]);
}

#[test]
fn what_may_pass_is_tried_again() {
    let (hub, user) = faulty(Faults { statuses: vec![500, 503], ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("127.0.0.1 fails (503); trying again in 0.0 s"), "{told}");
    let (hub, user) =
        faulty(Faults { statuses: vec![429], retry_after: Some(0), ..Faults::default() });
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("has been asked too often (429); trying again in 0.0 s"), "{told}");
    let (_hub, user) = faulty(Faults { statuses: vec![500; 9], ..Faults::default() });
    user.fails(&["127.0.0.1 fails (500), and did so 6 times; say the same again later"]);
}

#[test]
fn what_is_no_model_is_named() {
    let (_hub, user) =
        faulty(Faults { headers: vec![("Content-Encoding", "gzip")], ..Faults::default() });
    user.fails(&["sends the file compressed (gzip), which it was asked not to do"]);
    let (_hub, user) =
        faulty(Faults { headers: vec![("Content-Type", "text/html")], ..Faults::default() });
    user.fails(&["gives a web page and not a GGUF file"]);
    for (bytes, message) in [
        (&b"  <!DOCTYPE html><title>Sign in</title>"[..], "gives a web page and not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "gives what Git LFS keeps in place"),
        (b"PK\x03\x04zip", "gives no GGUF file: it begins with \"PK"),
        (b"GG", "gives no GGUF file: it begins with \"GG\""),
        (b"", "gives no GGUF file"),
    ] {
        let hub = Hub::new(&[(FILE, bytes)]);
        let user = User::of(&hub);
        user.fails(&[message]);
    }
    let hub = Hub::new(&[]);
    let user = User::of(&hub);
    user.fails(&["there is no GGUF file in this repository"]);
    for (path, message) in [
        ("page/r/blob/main/m.gguf", "write /resolve/ instead of /blob/"),
        ("page/r", "if this is a repository of the hub, write hf:page/r"),
        ("page/r/x/m.gguf?x", "name the address that its download button has"),
    ] {
        let (code, _, told) = user.says(&["inspect", &format!("{}/{path}", hub.endpoint)]);
        assert!(code == 1 && told.contains(message), "{told}");
    }
}

#[test]
fn a_redirect_that_leads_nowhere_is_told() {
    let (hub, user) =
        faulty(Faults { location: Some("ftp://elsewhere/m.gguf".into()), ..Faults::default() });
    user.fails(&["leads on to \"ftp://elsewhere/m.gguf\", which is no address"]);
    hub.state().faults.location = Some(format!("/u/r/resolve/c0ffee/{FILE}"));
    user.fails(&["leads on and on"]);
    let mut gone = user;
    gone.endpoint = "http://127.0.0.1:1".into();
    gone.fails(&["127.0.0.1 takes no connection on port 1"]);
    gone.endpoint = "nonsense".into();
    let (code, _, told) = gone.says(&["pull", NAME]);
    assert!(code == 2 && told.contains("HF_ENDPOINT is nonsense, which is no address"), "{told}");
}
