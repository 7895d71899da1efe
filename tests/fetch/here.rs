//! What is on this machine: several processes, ends at any moment, full disks, the list, offline.
use super::hub::{Faults, Hub, TINY, long, sha256};
use super::{BINARY, FILE, NAME, User, faulty, outcome};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn start(user: &User, args: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command
        .env_remove("HF_TOKEN")
        .env_remove("BROOKLET_OFFLINE")
        .envs(user.environment())
        .args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until so much has come.
fn wait_for(user: &User, bytes: u64) {
    let begun = Instant::now();
    while user.has(FILE) < bytes && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_that_came() {
    let step = 400_000 / 21;
    let (hub, user) = faulty(Faults { stalls: vec![step; 20], ..Faults::default() });
    for moment in 1..=20 {
        let mut child = start(&user, &["pull", NAME]);
        wait_for(&user, moment * step as u64);
        child.kill().unwrap();
        ended(child);
        assert!(!user.place(FILE).exists(), "killed at {moment} of 21");
    }
    user.pulls(&hub, FILE);
    assert_eq!(sha256(&std::fs::read(user.place(FILE)).unwrap()), sha256(&long(400_000)));
    assert_eq!(hub.state().sent, 400_000);
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_what_came_and_says_how_to_go_on() {
    let (hub, user) = faulty(Faults { stalls: vec![100_000], ..Faults::default() });
    let child = start(&user, &["pull", NAME]);
    wait_for(&user, 100_000);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (code, told) = ended(child);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains(&format!(
            "stopped; what came of {FILE} is kept, and the same command goes on"
        )),
        "{told}"
    );
    assert!(user.has(FILE) >= 100_000);
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("going on at"), "{told}");
}

#[test]
fn of_two_processes_one_waits_for_the_other() {
    let (hub, user) = faulty(Faults { pause: Duration::from_millis(60), ..Faults::default() });
    let first = start(&user, &["pull", NAME]);
    wait_for(&user, 20_000);
    let second = start(&user, &["inspect", NAME]);
    let (code, told) = ended(second);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("another brooklet is fetching this file; waiting for it"), "{told}");
    assert_eq!(ended(first).0, Some(0));
    assert_eq!(hub.state().sent, 400_000);
    user.is_tidy();
}

#[test]
fn a_disk_without_room_is_told_before_anything_comes() {
    let (_hub, user) = faulty(Faults {
        no_sha256: true,
        // Larger than any disk.
        headers: vec![("Content-Length", "9000000000000000")],
        ..Faults::default()
    });
    let address = format!("{}/{FILE}", _hub.cdn);
    let (code, _, told) = user.says(&["inspect", &address]);
    assert_eq!(code, 1, "{told}");
    for message in
        ["the disk of ", " is full: ", "are still to come, and ", "are free; what came is kept"]
    {
        assert!(told.contains(message), "{told}");
    }
}

/// A limit on the length of files stands for a disk that fills up: the write fails in the same place.
#[test]
#[cfg(unix)]
fn a_disk_that_fills_up_keeps_what_came() {
    let (hub, user) = faulty(Faults::default());
    let mut command = assert_cmd::Command::new("bash");
    command.envs(user.environment()).env_remove("HF_TOKEN").env_remove("BROOKLET_OFFLINE");
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$@\"";
    command.args(["-c", script, "bash", BINARY, "pull", NAME]);
    let (code, _, told) = outcome(&mut command);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("lets no file of") && told.contains("are still to come"), "{told}");
    assert_eq!(user.has(FILE), 200 * 1024, "{told}");
    let told = user.pulls(&hub, FILE);
    assert!(told.contains("going on at 200.00 KiB"), "{told}");
}

#[test]
fn a_split_model_is_fetched_whole() {
    let numbered = |no: u32| split(no, 2);
    let (one, two) = (numbered(0), numbered(1));
    let names = ["x/tiny-F16-00001-of-00002.gguf", "x/tiny-F16-00002-of-00002.gguf"];
    let hub = Hub::new(&[(names[0], &one), (names[1], &two), (FILE, TINY)]);
    let user = User::of(&hub);
    let (code, stdout, told) = user.says(&["pull", "hf:u/r:f16"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(Path::new(stdout.trim_end()), user.place(names[0]));
    assert_eq!(std::fs::read(user.place(names[0])).unwrap(), one);
    assert_eq!(std::fs::read(user.place(names[1])).unwrap(), two);
    assert!(!user.place(FILE).exists());
    let (_, listed, _) = user.says(&["models"]);
    assert!(listed.contains("hf:u/r:F16  "), "{listed}");
    // By address, from any of its files.
    let address = format!("{}/{}", hub.cdn, names[1]);
    let (code, stdout, told) = user.says(&["pull", &address]);
    assert_eq!(code, 0, "{told}");
    let second = Path::new(stdout.trim_end());
    assert_eq!(std::fs::read(second).unwrap(), two);
    assert_eq!(std::fs::read(second.with_file_name("tiny-F16-00001-of-00002.gguf")).unwrap(), one);
    hub.state().files.remove(names[1]);
    let (_, _, told) = user.says(&["pull", "hf:u/r:f16"]);
    assert!(
        told.contains(&format!("of its files {} is not in the repository", names[1])),
        "{told}"
    );
}

/// A file that says it is one of several.
fn split(no: u32, count: u32) -> Vec<u8> {
    let mut bytes = TINY.to_vec();
    bytes.extend([no as u8, count as u8]);
    bytes
}

#[test]
fn what_there_is_instead_is_listed() {
    let hub = Hub::new(&[("a-Q2_K.gguf", TINY), ("a-Q8_0.gguf", TINY), ("mmproj-a.gguf", TINY)]);
    let user = User::of(&hub);
    let (code, _, told) = user.says(&["inspect", "hf:u/r:Q5_K_M"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("hf:u/r:Q5_K_M: there is no Q5_K_M; there are: Q2_K ("), "{told}");
    assert!(told.contains("), Q8_0 (") && !told.contains("mmproj"), "{told}");
    let (code, _, told) = user.says(&["run", "-m", "hf:u"]);
    assert!(code == 2 && told.contains("hf:u is no name of a model: write hf:USER/REPO"), "{told}");
    let (code, _, told) = user.says(&["run", "-m", "u/r:Q8_0"]);
    assert!(code == 2 && told.contains("to fetch it from the hub, write hf:u/r:Q8_0"), "{told}");
    assert_eq!(files(user.folder.path()), Vec::<PathBuf>::new(), "nothing was fetched");
}

#[test]
fn models_are_listed_and_removed() {
    let (hub, user) = faulty(Faults { cuts: vec![50_000; 6], ..Faults::default() });
    assert!(user.says(&["models"]).1.contains("no models in "));
    user.fails(&["are kept"]);
    let (_, listed, _) = user.says(&["models"]);
    assert!(listed.contains("hf:u/r:Q8_0  292.97 KiB of 390.62 KiB, in part\n"), "{listed}");
    user.pulls(&hub, FILE);
    let address = format!("{}/{FILE}?x=1", hub.cdn);
    assert_eq!(user.says(&["pull", &address]).0, 0);
    let (_, listed, _) = user.says(&["models"]);
    assert!(
        listed.contains("hf:u/r:Q8_0") && listed.contains(&format!("{address}  390.62 KiB\n")),
        "{listed}"
    );
    assert!(listed.contains("\n781.25 KiB in "), "{listed}");
    let (_, lines, _) = user.says(&["models", "--json"]);
    let names: Vec<String> = lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["bytes"], 400_000);
            value["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names, ["hf:u/r:Q8_0".to_owned(), address]);
    let (code, _, told) = user.says(&["models", "rm", "hf:u/r:Q4_0"]);
    assert!(code == 1 && told.contains("there is no such model here"), "{told}");
    for name in names {
        let (code, stdout, told) = user.says(&["models", "rm", &name]);
        assert_eq!((code, stdout), (0, format!("removed {name}, 390.62 KiB\n")), "{told}");
    }
    assert_eq!(files(user.folder.path()), Vec::<PathBuf>::new());
    assert!(!user.folder.path().join("cache/models").exists());
}

#[test]
fn offline_takes_what_is_here_and_asks_nobody() {
    let hub = Hub::new(&[(FILE, TINY)]);
    let user = User::of(&hub);
    for args in [
        &["inspect", "--offline", NAME][..],
        &["pull", "--offline", NAME],
        &["run", "--offline", "-m", NAME],
    ] {
        let (code, _, told) = user.says(args);
        assert!(
            code == 1 && told.contains("not on this machine, and nothing is fetched offline"),
            "{told}"
        );
    }
    assert_eq!(hub.state().requests.len(), 0);
    user.pulls(&hub, FILE);
    let asked = hub.state().requests.len();
    for name in ["BROOKLET_OFFLINE", "HF_HUB_OFFLINE"] {
        let (code, _, told) = outcome(user.command(&["pull", NAME]).env(name, "1"));
        assert_eq!(code, 0, "{told}");
    }
    assert_eq!(user.says(&["inspect", "--offline", NAME]).0, 0);
    assert_eq!(hub.state().requests.len(), asked);
}

#[test]
fn pull_gets_what_has_changed_and_only_that() {
    let hub = Hub::new(&[(FILE, TINY)]);
    let user = User::of(&hub);
    user.pulls(&hub, FILE);
    user.pulls(&hub, FILE);
    assert_eq!(hub.downloads().len(), 1);
    hub.state().commit = "decaf".into();
    user.pulls(&hub, FILE);
    assert_eq!(hub.downloads().len(), 1, "the same file in another commit");
    hub.state().files.insert(FILE.into(), long(300_000));
    assert_eq!(user.says(&["inspect", NAME]).0, 0);
    assert_eq!(hub.downloads().len(), 1, "what is here does");
    user.pulls(&hub, FILE);
    assert_eq!(hub.downloads().len(), 2);
}

#[test]
#[cfg(unix)]
fn the_hugging_face_cache_is_used_where_it_has_the_file() {
    let hub = Hub::new(&[(FILE, TINY), ("tiny-F16.gguf", TINY)]);
    let user = User::of(&hub);
    let repo = user.folder.path().join("huggingface/models--u--r");
    let snapshot = repo.join("snapshots/c0ffee");
    for folder in ["refs", "blobs", "snapshots/c0ffee"] {
        std::fs::create_dir_all(repo.join(folder)).unwrap();
    }
    let blob = format!("../../blobs/{}", sha256(TINY));
    std::fs::write(repo.join("refs/main"), "c0ffee").unwrap();
    std::fs::write(snapshot.join(&blob), TINY).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join(FILE)).unwrap();
    // With its type it is found without a question; without it the hub has to say which one is meant.
    assert_eq!(user.says(&["inspect", "hf:u/r:Q8_0"]).0, 0);
    assert_eq!(user.says(&["inspect", "--offline", NAME]).0, 0);
    assert_eq!(hub.state().requests.len(), 0);
    let (code, stdout, told) = user.says(&["pull", NAME]);
    assert_eq!((code, Path::new(stdout.trim_end())), (0, &*snapshot.join(FILE)), "{told}");
    assert_eq!(hub.downloads().len(), 0);
    // One that is no longer the same is not taken.
    hub.state().files.insert(FILE.into(), long(TINY.len() + 1));
    user.pulls(&hub, FILE);
    assert_eq!(hub.downloads().len(), 1);
}
