//! `brooklet app`: the server for one user, and a window on its page.
use super::serve::{EngineArgs, NetworkArgs, Program, serve};
use brooklet::Result;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet app                                        the default model, in a window
  brooklet app -m hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF --streams 8
  brooklet app --browser firefox                      in a browser of your choice

It ends when its last page is closed, or at Ctrl-C. Conversations are kept by the browser, for the port: a second one that \
runs beside the first has its own.";

/// The same each time: what a page keeps belongs to its port.
const PORT: u16 = 8417;

/// Browsers that show a page in a window without tabs, as they are called on a PATH.
const NAMES: [&str; 9] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
    "brave-browser",
    "brave",
    "chrome",
];

/// Where macOS has them, below the folders of programs.
const BUNDLES: [&str; 4] = [
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "Brave Browser.app/Contents/MacOS/Brave Browser",
    "Chromium.app/Contents/MacOS/Chromium",
];

/// Where Windows has them, below its folders of programs.
const PROGRAMS: [&str; 4] = [
    r"Microsoft\Edge\Application\msedge.exe",
    r"Google\Chrome\Application\chrome.exe",
    r"BraveSoftware\Brave-Browser\Application\brave.exe",
    r"Chromium\Application\chrome.exe",
];

#[derive(Args)]
pub(crate) struct AppArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// The port, which the conversations belong to; another where it is taken
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// The browser that is opened: a program's name or path
    /// [default: Chromium, Chrome, Edge or Brave in a window of its own, else the system's browser]
    #[arg(long, value_name = "PROGRAM")]
    browser: Option<PathBuf>,
    /// Open nothing, and print the address with its key
    #[arg(long, conflicts_with = "browser")]
    no_browser: bool,
}

/// Runs until the last page has left.
pub(crate) fn run(args: &AppArgs, given: &[String]) -> Result<()> {
    let [a, b] = [0, 1].map(|_| uuid::Uuid::new_v4().simple().to_string());
    let key = a + &b;
    let network = NetworkArgs::of_program(args.port, key.clone());
    let open = |url: &str| {
        let url = format!("{url}#key={key}");
        match &args.browser {
            _ if args.no_browser => println!("{url}"),
            Some(browser) => window(browser, &url),
            None => match browser() {
                Some(browser) => window(&browser, &url),
                None => show(&url),
            },
        }
    };
    serve(&args.engine, &network, given, &Program { any_port: true, ends: true, open: &open })
}

/// Opens an address in the system's browser.
pub(crate) fn show(url: &str) {
    if let Err(error) = open::that_detached(url) {
        eprintln!("brooklet: no browser could be opened ({error}); open {url} yourself");
    }
}

/// Opens a window without tabs, or a page where the browser knows no such windows.
fn window(browser: &Path, url: &str) {
    let name = browser.file_stem().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let knows = ["chrom", "edge", "brave"].iter().any(|known| name.contains(known));
    let mut command = Command::new(browser);
    match profile().filter(|_| knows) {
        Some(profile) => {
            let mut folder = std::ffi::OsString::from("--user-data-dir=");
            folder.push(profile);
            command.arg(format!("--app={url}")).arg(folder);
            command.args(["--no-first-run", "--no-default-browser-check"]);
        }
        None => drop(command.arg(url)),
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C in a terminal is for this program, and closes no window.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    #[cfg(windows)]
    std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0000_0200); // CREATE_NEW_PROCESS_GROUP
    match command.spawn() {
        // Whoever ends first, nobody is left as a zombie.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => {
            let browser = browser.display();
            eprintln!("brooklet: {browser} could not be started ({error}); open {url} yourself");
        }
    }
}

/// A profile of its own: such a window has its own entry among those of the desktop, and nobody's extensions.
fn profile() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::home_dir();
    let data = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        var("XDG_DATA_HOME").or_else(|| Some(home?.join(".local/share")))
    };
    let folder = data?.join("brooklet").join("browser");
    std::fs::create_dir_all(&folder).ok().map(|()| folder)
}

/// A browser that shows pages in windows without tabs, if one is found.
fn browser() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name);
    let path = var("PATH").unwrap_or_default();
    let on_path = || {
        NAMES.into_iter().find_map(|name| {
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
        })
    };
    let in_folders = |folders: Vec<PathBuf>, files: &[&str]| {
        let each = |file: &&str| {
            folders.iter().map(|folder| folder.join(file)).find(|file| file.is_file())
        };
        files.iter().find_map(each)
    };
    if cfg!(windows) {
        let folders = ["ProgramFiles", "ProgramFiles(x86)", "LOCALAPPDATA"];
        in_folders(
            folders.iter().filter_map(|name| var(name)).map(PathBuf::from).collect(),
            &PROGRAMS,
        )
    } else if cfg!(target_os = "macos") {
        let own = std::env::home_dir().map(|home| home.join("Applications"));
        in_folders([Some("/Applications".into()), own].into_iter().flatten().collect(), &BUNDLES)
    } else {
        on_path()
    }
}
