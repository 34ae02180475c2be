//! The page in a real browser: charts are drawn, the script runs, nothing is asked of any network.
//!
//! In:    Chromium as the distribution has it.
//! Out:   facts that the browser's own document tells after it ran the page.
//! Never: a silent skip: without a browser every test says SKIPPED and why.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::made::Made;
use crate::survival::Runs;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Hosts that the browser itself asks, whatever it shows: its own updates and accounts.
const ITS_OWN: [&str; 4] = ["google.com", "googleapis.com", "gvt1.com", "gstatic.com"];
/// The browser ends on its own; a hung one must not hang the tests.
const SECONDS_MAX: &str = "120";

/// A browser that starts: some distributions put a note to install one in its place.
fn browser(test: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&folders).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let starts = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok_and(|told| told.status.success());
    let found = found.find(|path| path.is_file() && starts(path));
    if found.is_none() {
        eprintln!("SKIPPED {test}: no browser here (apt-get install chromium)");
    }
    found
}

/// What the browser shows of a page, and what it said.
struct Shown {
    dom: String,
    console: Vec<String>,
    /// What the page asked for, as it came to a proxy that answers nothing.
    requests: Vec<String>,
}

/// Loads a file; every request must go through a port that writes it down.
fn load(browser: &Path, file: &Path, more: &[&str]) -> Shown {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _timeout = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let mut line = String::new();
            let _read = BufReader::new(stream).read_line(&mut line);
            kept.lock().unwrap().push(line.trim().to_string());
        }
    });
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["-k", "5", SECONDS_MAX])
        .arg(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ])
        .args(["--disable-features=OptimizationHints,MediaRouter,Translate", "--no-pings", "--disable-default-apps"])
        .args(["--enable-logging=stderr", "--window-size=1280,1000", "--proxy-bypass-list=<-loopback>"])
        .arg(format!("--proxy-server=http://127.0.0.1:{port}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg("--dump-dom")
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {said}", output.status);
    Shown {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_string).collect(),
        requests: requests.lock().unwrap().iter().filter(|line| !is_its_own(line)).cloned().collect(),
    }
}

fn is_its_own(request: &str) -> bool {
    let address = request.split_whitespace().nth(1).unwrap_or_default();
    let host = address.trim_start_matches("http://").split(['/', ':']).next().unwrap_or_default();
    ITS_OWN.iter().any(|own| host == *own || host.ends_with(&format!(".{own}")))
}

/// Runs a script in a copy of the page, whose policy would forbid it, and gives back what it wrote into the document.
fn ask(browser: &Path, page: &Path, more: &[&str], script: &str) -> Value {
    let text = fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let (_, after) = rest.split_once('>').unwrap();
    let asking = format!(
        "<script>addEventListener(\"load\", () => {{ const told = {{}}; try {{ {script} }} catch (error) {{ told.error = String(error); }} \
         const note = document.createElement(\"pre\"); note.id = \"told\"; note.textContent = JSON.stringify(told); \
         document.body.append(note); }});</script></body>"
    );
    let copy = page.with_file_name("asked.html");
    fs::write(&copy, format!("{before}{}", after.replace("</body>", &asking))).unwrap();
    let shown = load(browser, &copy, more);
    assert_eq!(shown.console, Vec::<String>::new());
    let told = shown.dom.split("<pre id=\"told\">").nth(1).expect("the script ran").split("</pre>").next().unwrap();
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&told).unwrap()
}

#[test]
fn a_browser_draws_the_page_of_a_real_run_runs_its_script_and_asks_nothing_of_a_network() {
    let Some(browser) = browser("a_browser_draws_the_page...") else { return };
    let runs = Runs::new(12);
    runs.succeeds("out", &[]);
    let page = runs.path("out/report.html");
    let shown = load(&browser, &page, &[]);
    assert_eq!(shown.console, Vec::<String>::new(), "no error, and nothing that the policy had to stop");
    assert_eq!(shown.requests, Vec::<String>::new());
    let asking = page.with_file_name("asking.html");
    fs::write(&asking, "<!doctype html><img src=\"http://asked.invalid/for.png\">").unwrap();
    let asked = load(&browser, &asking, &[]).requests;
    assert!(
        asked.iter().any(|line| line.contains("http://asked.invalid/for.png")),
        "a page that asks is seen: {asked:?}"
    );
    assert!(shown.dom.contains("data-scripted=\"yes\""), "the script ran to its end");
    let told = ask(
        &browser,
        &page,
        &[],
        "told.charts = [...document.querySelectorAll('.chart')].map((chart) => {
             const box = chart.querySelector('svg').getBoundingClientRect();
             const curve = chart.querySelector('g.lin .curve').getBBox();
             return { id: chart.id, width: box.width, height: box.height, curve: curve.width };
         });
         told.wide = document.documentElement.scrollWidth <= innerWidth;",
    );
    assert_eq!(told["error"], Value::Null);
    let charts = told["charts"].as_array().unwrap();
    assert!(charts.len() >= 6, "{told}");
    for chart in charts {
        assert!(chart["width"].as_f64() > Some(300.0) && chart["height"].as_f64() > Some(150.0), "{chart}");
        assert!(chart["curve"].as_f64() > Some(400.0), "the curve goes from the first step to the last: {chart}");
    }
    assert_eq!(told["wide"], true, "nothing sticks out of the page");
}

#[test]
fn pointer_keys_slider_and_logarithm_do_what_they_promise() {
    let Some(browser) = browser("pointer_keys_slider_and_logarithm...") else { return };
    let made = Made::new();
    made.run("one", 80, &|_, _| {});
    let page = made.report_file(&["one"]);
    let told = ask(
        &browser,
        &page,
        &[],
        "const chart = document.getElementById('chart-speed'), svg = chart.querySelector('svg'), box = svg.getBoundingClientRect();
         const numbers = (path) => path.getAttribute('d').match(/-?[0-9.]+/g).map(Number);
         const apart = (a, b) => Math.max(...a.map((one, at) => Math.abs(one - b[at])), Math.abs(a.length - b.length));
         const value = (id) => document.querySelector('#chart-' + id + ' [data-value]').textContent;
         const seen = (part) => getComputedStyle(part).display !== 'none';
         told.resting = value('loss');
         const scale = box.width / 560, left = box.left + 68 * scale, right = box.left + 548 * scale;
         svg.dispatchEvent(new PointerEvent('pointermove', { clientX: left + (right - left) * 40 / 80, clientY: box.top + 50 }));
         told.at = document.getElementById('at-step').textContent;
         told.pointed = value('loss');
         told.cross = document.querySelector('#chart-memory .cross').getAttribute('visibility');
         svg.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', cancelable: true }));
         told.next = document.getElementById('at-step').textContent;
         svg.dispatchEvent(new PointerEvent('pointerleave'));
         told.left = value('loss');
         const curve = document.querySelector('#chart-loss g.lin .curve'), slider = document.getElementById('smoothing');
         const drawn = numbers(curve), raw = numbers(document.querySelector('#chart-loss g.lin .raw'));
         told.smooth = apart(drawn, raw);
         slider.value = 0; slider.dispatchEvent(new Event('input'));
         told.raw = apart(numbers(curve), raw);
         slider.value = 28; slider.dispatchEvent(new Event('input'));
         told.again = apart(numbers(curve), drawn);
         told.told = document.getElementById('smoothing-steps').textContent;
         const lin = document.querySelector('#chart-loss g.lin'), log = document.querySelector('#chart-loss g.log');
         told.before = [seen(lin), seen(log), seen(document.querySelector('#chart-memory g.lin'))];
         document.getElementById('logarithmic').click();
         told.after = [seen(lin), seen(log), seen(document.querySelector('#chart-memory g.lin'))];",
    );
    assert_eq!(told["error"], Value::Null, "{told}");
    assert_eq!((&told["at"], &told["next"]), (&json!("at step 40"), &json!("at step 41")));
    assert_eq!(
        (&told["resting"], &told["pointed"], &told["left"]),
        (&json!("0.4472"), &json!("0.6325"), &json!("0.4472"))
    );
    assert_eq!(told["cross"], "visible");
    assert!(told["smooth"].as_f64() > Some(2.0), "a smoothed curve is another: {told}");
    assert!(told["raw"].as_f64() < Some(0.11), "without smoothing the curve is the raw one: {told}");
    assert!(told["again"].as_f64() < Some(0.11), "the script smooths as the page was drawn: {told}");
    assert_eq!((&told["before"], &told["after"]), (&json!([true, false, true]), &json!([false, true, true])));
    assert_eq!(told["told"], "about 2 steps");
}

#[test]
fn runs_can_be_hidden_and_hostile_text_runs_nothing() {
    let Some(browser) = browser("runs_can_be_hidden...") else { return };
    let made = Made::new();
    made.run("one", 60, &|_, _| {});
    made.run("two", 60, &|_, _| {});
    let hostile = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">";
    made.edit("two", "recipe.toml", &|text| text.replace("name = \"two\"", &format!("name = '''{hostile}'''")));
    let page = made.report_file(&["one", "two"]);
    let shown = load(&browser, &page, &[]);
    assert_eq!((shown.console, shown.requests), (Vec::new(), Vec::new()));
    let told = ask(
        &browser,
        &page,
        &[],
        "told.title = document.title;
         const parts = [...document.querySelectorAll('#chart-loss [data-run=\"1\"]')];
         const shown = () => parts.filter((part) => getComputedStyle(part).display !== 'none').length;
         told.parts = parts.length; told.before = shown();
         document.querySelectorAll('.run-shown')[1].click(); told.hidden = shown();
         document.querySelectorAll('.run-shown')[1].click(); told.again = shown();",
    );
    assert_eq!(told["error"], Value::Null, "{told}");
    assert!(told["title"].as_str().unwrap().contains("<script>document.title"), "the name is shown, not run: {told}");
    assert!(told["parts"].as_u64() > Some(4), "{told}");
    assert_eq!((&told["before"], &told["hidden"], &told["again"]), (&told["parts"], &json!(0), &told["parts"]));
}

#[test]
fn the_page_fits_a_narrow_window_and_shows_curves_without_a_script() {
    let Some(browser) = browser("the_page_fits_a_narrow_window...") else { return };
    let made = Made::new();
    made.run("one", 60, &|_, _| {});
    let page = made.report_file(&["one"]);
    let told = ask(
        &browser,
        &page,
        &["--window-size=400,800"],
        "told.inner = innerWidth;
         told.sticks = [...document.querySelectorAll('.chart, .tiles, .controls')].filter((part) => part.getBoundingClientRect().right > innerWidth).length;
         told.scrolls = document.documentElement.scrollWidth > innerWidth;",
    );
    assert!(told["inner"].as_u64() <= Some(500), "{told}");
    assert_eq!((&told["error"], &told["sticks"], &told["scrolls"]), (&Value::Null, &json!(0), &json!(false)), "{told}");
    let text = fs::read_to_string(&page).unwrap();
    let scriptless = page.with_file_name("scriptless.html");
    fs::write(&scriptless, text[..text.find("<script").unwrap()].to_string() + "</body></html>").unwrap();
    let told = ask(
        &browser,
        &scriptless,
        &[],
        "told.curves = [...document.querySelectorAll('g.lin .curve')].filter((curve) => curve.getBBox().width > 400).length;
         told.tools = [...document.querySelectorAll('.scripted')].filter((tool) => getComputedStyle(tool).display !== 'none').length;
         const log = document.querySelector('#chart-loss g.log'); document.getElementById('logarithmic').click();
         told.log = getComputedStyle(log).display;",
    );
    assert!(told["curves"].as_u64() >= Some(6), "{told}");
    assert_eq!(
        (&told["tools"], &told["log"]),
        (&json!(0), &json!("inline")),
        "tools that need a script are not shown: {told}"
    );
}
