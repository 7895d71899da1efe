//! A live server with a tiny random model, for tests of what its clients see.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");

/// A server that ends with its test.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `brooklet serve` on a free port, once it answers. The model has no template of its own.
    pub(crate) fn started(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
        command.args(["serve", "-m", TINY, "--tune", "off", "--port", "0"]);
        let mut process = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines =
            BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.by_ref().find_map(|line| line.split_once("http://").map(|(_, at)| at.to_owned()));
        let address = address.expect("the server says where it is");
        assert!(lines.any(|line| line.contains("streams")), "the server is ready");
        // Nobody reads the rest.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }
}
