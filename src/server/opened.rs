//! The data directory, opened before the receivers start.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use carbon::{Access, Carbon, OnDeath, Setup, Timestamp};
use render::events::Store;
use render::events::observer::observer;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::demo::{self, shop::Shop};
use crate::http::Readiness;
use crate::lock::DataLock;
use crate::store::Remote;
use crate::supervise::Supervisor;

/// The stores of the data directory, opened before the receivers start.
pub(super) struct Opened {
    pub(super) shop: Option<Shop>,
    pub(super) events: Arc<Store>,
    pub(super) carbon: Carbon,
    pub(super) remote: Option<Remote>,
}

/// Opens the data directory on a thread of its own and sends the result: reading back a long journal
/// takes time, and a thread of the runtime must not wait for it.
pub(super) fn open(
    config: &Config,
    demo: bool,
    lock: Arc<DataLock>,
    readiness: &Readiness,
    supervisor: &Supervisor,
    opened: oneshot::Sender<anyhow::Result<Opened>>,
) -> anyhow::Result<()> {
    let (config, readiness) = (config.clone(), readiness.clone());
    let on_death = supervisor.on_death();
    let work = move || {
        let outcome = Opened::read(&config, demo, lock, readiness, &on_death);
        // The receiver is dropped if the server was stopped during the start.
        let _ = opened.send(outcome);
    };
    std::thread::Builder::new()
        .name("open".to_owned())
        .spawn(work)
        .context("starting a thread")?;
    Ok(())
}

impl Opened {
    fn read(
        config: &Config,
        demo: bool,
        lock: Arc<DataLock>,
        readiness: Readiness,
        on_death: &OnDeath,
    ) -> anyhow::Result<Self> {
        let shop = demo.then(|| demo::open(&config.data)).transpose()?;
        let path = config.data.join("events.db");
        let events = Store::open_watched(&path, &config.events, on_death).context("events")?;
        let now = config.render.now;
        let mut setup = Setup::new(
            config.carbon.clone(),
            config.journal.clone(),
            config.statsd.flush_interval,
        );
        if now != 0 {
            let at = u32::try_from(now)
                .map_err(|_| anyhow!("render.now: {now} is not a timestamp in Unix seconds"))?;
            setup.access = Access::Frozen;
            setup.clock = Arc::new(move || Timestamp(at));
        }
        setup.observer = observer(&events);
        setup.guard = Some(Arc::new(move || lock.check()));
        setup.on_death = Arc::clone(on_death);
        setup.replaying = Arc::new(move |bytes, of| readiness.replaying(bytes, of));
        let remote = Remote::of(config)?;
        setup.delivery = remote.as_ref().map(Remote::delivery);
        let carbon = Carbon::open(setup, &config.data).context("carbon")?;
        Ok(Self {
            shop,
            events,
            carbon,
            remote,
        })
    }
}
