//! Reports threads that end by a panic, so that the process does not go on without their work.

use std::sync::Arc;

/// Called with the name of a thread or task that has ended by a panic.
pub type OnDeath = Arc<dyn Fn(&str) + Send + Sync>;

/// Held by a thread or task for as long as it runs. Dropped by a panic, it reports.
pub struct Alarm {
    name: String,
    on_death: OnDeath,
}

impl Alarm {
    /// An alarm for the thread or task called `name`.
    pub fn new(name: impl Into<String>, on_death: &OnDeath) -> Self {
        Self {
            name: name.into(),
            on_death: Arc::clone(on_death),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.on_death)(&self.name);
        }
    }
}

/// Does nothing: for tests and tools that check their threads themselves.
pub fn silent() -> OnDeath {
    Arc::new(|_| {})
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_panic_is_reported_and_an_ordinary_end_is_not() {
        let dead = Arc::new(Mutex::new(Vec::new()));
        let on_death: OnDeath = {
            let dead = Arc::clone(&dead);
            Arc::new(move |name| dead.lock().unwrap().push(name.to_owned()))
        };
        for (name, panics) in [("well", false), ("ill", true)] {
            let alarm = Alarm::new(name, &on_death);
            let ended = std::thread::spawn(move || {
                let _alarm = alarm;
                assert!(!panics, "on purpose");
            });
            assert_eq!(ended.join().is_err(), panics);
        }
        assert_eq!(*dead.lock().unwrap(), ["ill"]);
    }
}
