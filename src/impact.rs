//! The worker that judges deploys, as a thread of the server.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use carbon::Alarm;
use render::events::{Event, Store};
use render::http::App;
use render::http::page::Page;
use render::impact::Report;
use render::source::Source;
use render::verdicts::{Handle, Host, Judge, Worker};
use serde_json::json;
use tracing::debug;

use crate::config::Config;
use crate::supervise::Supervisor;

/// The lowest priority: the worker gets what receivers, queries and files leave of the processors.
const STEPS: i32 = 19;
/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The judge of the server, and its worker.
pub struct Impact {
    /// Its counters.
    pub judge: Arc<Judge>,
    /// Asks for verdicts.
    pub handle: Handle,
    thread: JoinHandle<()>,
}

impl Impact {
    /// Starts the worker.
    ///
    /// # Errors
    /// An option that makes no sense, or no thread can be started.
    pub fn start(
        config: &Config,
        events: &Arc<Store>,
        source: Arc<dyn Source>,
        app: &App,
        page: &Page,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let options = &config.impact;
        let memory = Arc::clone(&app.memory);
        let judge = Judge::new(options, events.clone(), source, memory);
        let judge = Arc::new(judge.map_err(|why| anyhow!("impact: {why}"))?);
        let host = Surroundings {
            page: page.clone(),
            now: config.render.now,
            webhook: options.webhook.clone(),
        };
        let (worker, handle) = Worker::new(judge.clone(), Arc::new(host), &options.worse_tags);
        let alarm = Alarm::new("impact", &supervisor.on_death());
        let work = move || {
            let _alarm = alarm;
            // On Linux this is the priority of the thread and of those that it starts.
            if let Err(error) = rustix::process::nice(STEPS) {
                debug!(%error, "the priority of the judge of deploys");
            }
            worker.run();
        };
        let thread = Builder::new().name("impact".to_owned()).spawn(work);
        Ok(Self {
            judge,
            handle,
            thread: thread.context("starting a thread")?,
        })
    }

    /// Stops the worker and waits for its end: a verdict in progress is abandoned.
    ///
    /// # Errors
    /// It ended by a panic.
    pub fn stop(self) -> anyhow::Result<()> {
        self.handle.stop();
        self.thread
            .join()
            .map_err(|_| anyhow!("the judge of deploys failed"))
    }
}

/// What the worker sees of the server.
struct Surroundings {
    page: Page,
    now: i64,
    webhook: String,
}

impl Host for Surroundings {
    fn now(&self) -> f64 {
        if self.now != 0 {
            return self.now as f64;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }

    fn dashboards(&self) -> Vec<String> {
        self.page.targets()
    }

    fn worse(&self, event: &Event, report: &Report) -> Result<(), String> {
        if self.webhook.is_empty() {
            return Ok(());
        }
        let mut json = event.to_json();
        json["impact"] = serde_json::to_value(report).unwrap_or_default();
        // Chats show "text".
        let body = json!({
            "text": format!("{}: {}: {}", report.verdict.name(), event.what, report.sentence),
            "event": json,
        });
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("plumbago/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .build();
        let agent: ureq::Agent = config.into();
        let request = agent.post(&self.webhook);
        let request = request.header("content-type", "application/json");
        match request.send(body.to_string()) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{}: {why}", self.webhook)),
        }
    }
}
