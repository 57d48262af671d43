//! The database opened: its settings and tables, and the check for damage.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::failed;
use crate::events::{Error, file, schema};

/// The database at `path`, ready to be written; the inner error says how it is damaged.
pub(super) fn open_sound(path: &Path) -> Result<Result<Connection, String>, Error> {
    let db = file::open(path)?;
    let outcome = match prepare(&db, path) {
        Ok(()) => file::check(&db, path).map_err(failed("checking the database")),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(None) => Ok(Ok(db)),
        Ok(Some(damage)) => Ok(Err(damage)),
        Err(Error::Failed { source, .. }) if file::is_damage(&source) => {
            Ok(Err(source.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn prepare(db: &Connection, path: &Path) -> Result<(), Error> {
    let refuse = failed("preparing the database");
    let setup = || {
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update(None, "cache_size", -16_384)?;
        db.set_prepared_statement_cache_capacity(32);
        db.pragma_query_value(None, "user_version", |record| record.get::<_, i64>(0))
    };
    match setup().map_err(refuse)? {
        0 => create(db, &[schema::CREATE, schema::IMPACTS, schema::REVISIONS]),
        1 => create(db, &[schema::IMPACTS, schema::REVISIONS]),
        2 => create(db, &[schema::REVISIONS]),
        schema::VERSION => Ok(()),
        found => Err(Error::Newer {
            path: path.to_owned(),
            found,
            known: schema::VERSION,
        }),
    }
}

/// Creates tables and sets the version, all or nothing.
fn create(db: &Connection, tables: &[&str]) -> Result<(), Error> {
    let work = || {
        let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
        transaction.execute_batch(&tables.concat())?;
        schema::mark_all(&transaction)?;
        transaction.pragma_update(None, "user_version", schema::VERSION)?;
        transaction.commit()
    };
    work().map_err(failed("creating the tables"))
}

pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = file::connect(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -16_384)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}
