//! A headless Chromium, driven over its DevTools protocol.
//!
//! The protocol runs over a pair of pipes (`--remote-debugging-pipe`): JSON messages that end in a
//! zero byte. Tests are skipped with a printed reason where there is no Chromium, unless the
//! variable `PLUMBAGO_BROWSER` is `required`.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on must say where"
)]

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "chromium-headless-shell",
];

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: RefCell<ChildStdin>,
    from: Receiver<Value>,
    next: Cell<u64>,
    session: RefCell<Option<String>>,
    /// Errors that the page logged, and exceptions.
    complaints: RefCell<Vec<String>>,
    _profile: TempDir,
}

impl Browser {
    /// A browser with an empty page of a desktop's size; `None` where no browser is installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = NAMES.iter().find(|name| has(name)) else {
            let required = std::env::var("PLUMBAGO_BROWSER").is_ok_and(|value| value == "required");
            assert!(!required, "no Chromium: none of {NAMES:?} is in PATH");
            eprintln!("skipped: there is no Chromium (none of {NAMES:?} is in PATH)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null"])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--mute-audio"])
            .args(["--remote-debugging-pipe", "--force-color-profile=srgb"])
            .arg("--disable-background-networking")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let read = serde_json::from_slice(&message);
                if read.is_ok_and(|value| sender.send(value).is_err()) {
                    return;
                }
                message.clear();
            }
        });
        let browser = Self {
            to: RefCell::new(child.stdin.take().unwrap()),
            child,
            from,
            next: Cell::new(1),
            session: RefCell::new(None),
            complaints: RefCell::default(),
            _profile: profile,
        };
        browser.open_page();
        Some(browser)
    }

    fn open_page(&self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = self.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        *self.session.borrow_mut() = Some(session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.desktop();
    }

    /// Calls a method of the protocol and returns its result.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        let id = self.next.get();
        self.next.set(id + 1);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &*self.session.borrow() {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.borrow_mut().write_all(&bytes).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(answer) = self.from.recv_timeout(left) else {
                panic!("{method}: the browser does not answer");
            };
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    fn hear(&self, message: &Value) {
        let params = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                params["entry"].to_string()
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                params["args"].to_string()
            }
            _ => return,
        };
        self.complaints.borrow_mut().push(complaint);
    }

    /// The errors so far, among them violations of the content security policy.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.eval("1");
        self.complaints.take()
    }

    /// A desktop's screen.
    pub(crate) fn desktop(&self) {
        self.screen(1440, 900, false);
    }

    /// A phone's screen, with touch.
    pub(crate) fn phone(&self) {
        self.screen(390, 844, true);
    }

    fn screen(&self, width: u32, height: u32, mobile: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        );
        self.call(
            "Emulation.setTouchEmulationEnabled",
            json!({"enabled": mobile}),
        );
    }

    /// Whether the system prefers dark colours.
    pub(crate) fn prefer_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": value}]}),
        );
    }

    /// Whether scripts run.
    pub(crate) fn scripts(&self, run: bool) {
        self.call(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !run}),
        );
    }

    /// Opens `url` and waits until it has loaded.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        // Another document answers `readyState` afterwards.
        self.eval("window.isOld = true");
        self.call("Page.navigate", json!({"url": url}));
        self.wait("!window.isOld && document.readyState === 'complete'");
    }

    /// The value of an expression; promises are awaited.
    #[track_caller]
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let answer = self.call("Runtime.evaluate", params);
        let wrong = &answer["exceptionDetails"];
        assert!(wrong.is_null(), "{expression}: {wrong}");
        answer["result"]["value"].clone()
    }

    /// The text of an expression.
    #[track_caller]
    pub(crate) fn text(&self, expression: &str) -> String {
        match self.eval(expression) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait(&self, expression: &str) {
        self.wait_within(PATIENCE, expression);
    }

    /// Waits until an expression is true, for no longer than `patience`.
    #[track_caller]
    pub(crate) fn wait_within(&self, patience: Duration, expression: &str) {
        let deadline = Instant::now() + patience;
        // A page that is being replaced has no context to evaluate in.
        let guarded = format!(
            "(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        );
        let params = json!({"expression": guarded, "returnByValue": true});
        while self.call("Runtime.evaluate", params.clone())["result"]["value"] != true {
            if Instant::now() > deadline {
                let page = self.text("document.body.innerText.slice(0, 3000)");
                let complaints = self.complaints.borrow();
                panic!("never true: {expression}\n{complaints:?}\n{page}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Presses and releases a key.
    pub(crate) fn key(&self, key: &str) {
        let mut params = json!({"type": "keyDown", "key": key, "code": key});
        let codes = [
            ("Enter", 13),
            ("Tab", 9),
            ("Escape", 27),
            ("ArrowLeft", 37),
            ("ArrowRight", 39),
        ];
        match codes.iter().find(|(name, _)| *name == key) {
            Some((_, code)) => params["windowsVirtualKeyCode"] = (*code).into(),
            None => params["text"] = key.into(),
        }
        if key == "Enter" {
            params["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", params.clone());
        params["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", params);
    }

    /// Types text into the focused element.
    pub(crate) fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Moves the mouse.
    pub(crate) fn mouse(&self, kind: &str, (x, y): (f64, f64)) {
        let pressed = u8::from(kind != "mouseMoved");
        self.call(
            "Input.dispatchMouseEvent",
            json!({"type": kind, "x": x, "y": y, "button": if pressed == 1 { "left" } else { "none" }, "buttons": pressed, "clickCount": pressed}),
        );
    }

    /// Drags from one place to another.
    pub(crate) fn drag(&self, from: (f64, f64), to: (f64, f64)) {
        self.mouse("mouseMoved", from);
        self.mouse("mousePressed", from);
        let params =
            json!({"type": "mouseMoved", "x": to.0, "y": to.1, "button": "left", "buttons": 1});
        self.call("Input.dispatchMouseEvent", params);
        self.mouse("mouseReleased", to);
    }

    /// Taps with a finger.
    pub(crate) fn tap(&self, (x, y): (f64, f64)) {
        let points = json!([{"x": x, "y": y}]);
        self.call(
            "Input.dispatchTouchEvent",
            json!({"type": "touchStart", "touchPoints": points}),
        );
        self.call(
            "Input.dispatchTouchEvent",
            json!({"type": "touchEnd", "touchPoints": []}),
        );
    }

    /// The middle of an element, scrolled into view.
    #[track_caller]
    pub(crate) fn place(&self, selector: &str) -> (f64, f64) {
        let quoted = serde_json::to_string(selector).unwrap();
        let found = self.eval(&format!(
            "(() => {{ const element = document.querySelector({quoted}); \
             element.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = element.getBoundingClientRect(); \
             return [box.left + box.width / 2, box.top + box.height / 2] }})()"
        ));
        (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
    }

    /// The left edge and the width of an element.
    #[track_caller]
    pub(crate) fn across(&self, selector: &str) -> (f64, f64) {
        let quoted = serde_json::to_string(selector).unwrap();
        let found = self.eval(&format!(
            "(() => {{ const box = document.querySelector({quoted}).getBoundingClientRect(); \
             return [box.left, box.width] }})()"
        ));
        (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
    }

    /// Clicks on the middle of an element.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let place = self.place(selector);
        self.mouse("mouseMoved", place);
        self.mouse("mousePressed", place);
        self.mouse("mouseReleased", place);
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
