//! A browser that looks at pages, for tests of them.

use crate::harness::{Pass, run_command};
use crate::install::runs;
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Names that it goes by.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Where a looker-on puts what it saw, in the page that is dumped.
const SEEN: [&str; 2] = ["<pre id=\"seen\">", "</pre>"];
/// Longest that it may look.
const LIMIT: Duration = Duration::from_secs(300);

/// The one that there is.
pub fn find() -> Option<&'static str> {
    let mut names = NAMES.into_iter();
    names.find(|name| runs(&mut Command::new(name), &["--version"]))
}

/// What a test says where there is none.
pub fn missing() -> Pass {
    let install = "sudo apt-get install chromium";
    Pass::Skipped(format!(
        "expected Chromium, found none; install it with: {install}"
    ))
}

/// Shows a looker-on, a page that frames others of the folder, and reads what it put into its `<pre id="seen">`
/// in JSON.
pub fn look<T: for<'a> Deserialize<'a>>(
    browser: &str,
    folder: &Path,
    looker_on: &str,
) -> Result<T, String> {
    let page = folder.join("looker-on.html");
    fs::write(&page, looker_on).map_err(|error| format!("{}: {error}", page.display()))?;
    let mut command = Command::new(browser);
    // Root has no sandbox; files count as strangers to each other without the third.
    command.args([
        "--headless",
        "--no-sandbox",
        "--allow-file-access-from-files",
        "--disable-gpu",
    ]);
    command.args([
        "--enable-logging=stderr",
        "--window-size=1400,900",
        "--dump-dom",
    ]);
    command.arg(format!(
        "--user-data-dir={}",
        folder.join("browser").display()
    ));
    command.arg(format!("file://{}", page.display()));
    let ran = run_command(&mut command, LIMIT)?;
    if let Some(line) = ran.stderr.lines().find(|line| line.contains("CONSOLE")) {
        return Err(format!(
            "expected nothing on the browser's console, found: {line}"
        ));
    }
    let inside = ran
        .stdout
        .split_once(SEEN[0])
        .and_then(|(_, rest)| rest.split_once(SEEN[1]));
    let text = inside.map_or("", |(text, _)| text);
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&text).map_err(|error| {
        format!(
            "expected what was seen, found {text:?}: {error}; {}",
            ran.stderr
        )
    })
}
