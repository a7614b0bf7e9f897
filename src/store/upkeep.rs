//! What keeps the database: backups, checks and what they remember, on a running node and without one.
//!
//! Each job of a running node is done on the keeping thread; here it is only ordered.

use super::Options;
use super::disk::Entry;
use super::still::Still;
use super::{
    Backup, BackupLedger, BackupOrder, Checked, Disk, FileSystem, Incident, Restored, Store, aside, backup, check,
    disk, failure, header, ledger, open, recover, restore, verify,
};
use crate::document::Page;
use crate::error::Error;
use crate::time::Millis;
use std::path::Path;
use std::string::String;
use std::sync::Arc;

/// What was found out about a file that is gone over page by page.
#[derive(Debug, Default)]
pub struct Salvage(Still);

impl Store {
    /// Makes a backup: whole, verified, under a name of its own and as `latest.db`. Everything that was answered before
    /// the call is in it. One backup or check at a time; nobody waits for it.
    ///
    /// # Errors
    /// `DiskFull` where space is short; the folder's and the disk's; `DatabaseCorruption` where what was copied is damaged;
    /// `TooManyRequests` while another one is under way. The backups before stay.
    pub async fn backup(&self, order: BackupOrder) -> Result<Backup, Error> {
        if let Some(why) = self.0.gate.still() {
            let message = std::format!("no backup is made of a damaged database, and those that are there stay: {why}");
            return Err(Error::DatabaseCorruption { message, source: None });
        }
        let knowledge = self.knowledge().await?;
        let (keeper, options, writes) = (self.0.keeper.clone(), self.0.options.clone(), self.0.writes.clone());
        let doing = move || backup::make(&keeper, &options, &order, &knowledge, || writes.nudge());
        self.keep_an_eye(doing, |_| false).await
    }
    /// Looks at all of the database: structure, checksums, sums. What is damaged is an answer, not an error; where that is the
    /// structure, the writing thread sees to it from here on, as if a request had met it.
    ///
    /// # Errors
    /// The disk's; the database cannot be read at all; `TooManyRequests` while a backup or check is under way.
    pub async fn check(&self) -> Result<Checked, Error> {
        let (keeper, options, writes) = (self.0.keeper.clone(), self.0.options.clone(), self.0.writes.clone());
        let doing = move || check::running(&keeper, &options, &writes);
        self.keep_an_eye(doing, |checked| !checked.structure.is_empty()).await
    }
    /// Remembers how long the node has run since its last backup, durably.
    ///
    /// # Errors
    /// The disk's; `TooManyRequests` while a backup or check is under way.
    pub async fn note_backup_clock(&self, elapsed_ms: Millis) -> Result<(), Error> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || {
            let (disk, path) = (&*options.disk, &options.path);
            ledger::write(disk, path, &BackupLedger { elapsed_ms, ..ledger::read(disk, path) })
        })
        .await
    }
    /// Restores a backup as the database at `database`, where no node is running. It is verified before anything is touched;
    /// the database that was there is set aside. The next start takes a new identity.
    ///
    /// # Errors
    /// A node holds the database; the file is not a whole database of this or an earlier release; no room.
    pub fn restore(database: &Path, file: &Path) -> Result<Restored, Error> {
        Store::restore_on(&FileSystem, database, file)
    }
    /// The same on a disk that is not the machine's own.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub fn restore_on(disk: &dyn Disk, database: &Path, file: &Path) -> Result<Restored, Error> {
        restore::restore(disk, database, file)
    }
    /// Looks at all of a database that no node has open.
    ///
    /// # Errors
    /// A node holds it; it cannot be read at all.
    pub fn check_offline(database: &Path) -> Result<Checked, Error> {
        check::offline(&FileSystem, database)
    }
    /// Whether a file says that it is a backup.
    pub fn is_backup(file: &Path) -> bool {
        matches!(header::kind(&FileSystem, file), Ok(Some(header::Kind::Backup)))
    }
    /// Reads all of a backup; answers how many rows are in it.
    ///
    /// # Errors
    /// It is no whole database of this or an earlier release, or damaged.
    pub fn verify_backup(file: &Path) -> Result<u64, Error> {
        let found = verify::file(&FileSystem, file, || false)?;
        if found.damage.is_empty() { Ok(found.rows) } else { Err(found.damage.error(file, "take another backup")) }
    }
    /// How many databases were set aside beside this one, and the bytes that they take.
    pub fn set_aside(database: &Path) -> (usize, u64) {
        let (kept, bytes) = aside::kept(&FileSystem, database);
        (kept.len(), bytes)
    }
    /// Documents of a collection that are whole in the pages of a file that no node has open, whatever else is broken in it: those
    /// behind a key, in byte order. `remembered` keeps what was found out about the file from one page to the next.
    ///
    /// # Errors
    /// A node has it open; it is no file; the disk's.
    pub fn whole_documents(
        file: &Path,
        collection: &str,
        after: &str,
        remembered: &mut Salvage,
    ) -> Result<Page, Error> {
        let at = file.display();
        match FileSystem.entry(file).map_err(|error| failure::file("reading", file, error))? {
            Some(Entry::File(_)) => {}
            Some(Entry::Folder | Entry::Other) => return Err(failure::no_file(file)),
            None => return Err(Error::persistence(std::format!("there is no file {at}: check the path"), None)),
        }
        if Store::is_held(file) {
            let next = "leave --file out, or stop the node";
            return Err(Error::persistence(std::format!("{at} is open in a node: {next}"), None));
        }
        remembered.0.export(&Options::new(file), collection, after)
    }
    /// Whether a node has the database open.
    pub fn is_held(database: &Path) -> bool {
        disk::is_held(&open::beside(database, ".lock"))
    }
    /// Waits until the store finds that the database is damaged and nothing can take its place, so that nothing is written any more,
    /// and says why; told once. It never ends otherwise.
    pub async fn lies_still(&self) -> Option<String> {
        self.0.gate.told().recv().await.ok()
    }
    /// What happened to the database, until a person has acknowledged it.
    pub async fn incident(&self) -> Option<Incident> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || Ok(recover::incident(&*options.disk, &options.path))).await.ok().flatten()
    }
    /// A person knows what happened to the database.
    ///
    /// # Errors
    /// The disk's; `TooManyRequests` while a backup or check is under way.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        let options = Arc::clone(&self.0.options);
        self.keep(move || recover::acknowledge(&*options.disk, &options.path)).await
    }

    /// Does a job that reads all of the database. Damage that it meets is looked into.
    async fn keep_an_eye<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
        damaged: fn(&T) -> bool,
    ) -> Result<T, Error> {
        let (gate, writes) = (Arc::clone(&self.0.gate), Arc::clone(&self.0.writes));
        self.keep(move || {
            let done = job();
            let met = match &done {
                Ok(done) => damaged(done),
                Err(error) => matches!(error, Error::DatabaseCorruption { .. }),
            };
            if met {
                gate.suspect();
                writes.nudge();
            }
            done
        })
        .await
    }
    /// Does a job on a thread of its own.
    async fn keep<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = async_channel::bounded(1);
        let keeper = Arc::clone(&self.0.keeper);
        self.0.keeper.start(move || {
            let done = job();
            keeper.done();
            // Whoever has gone away does not want to know.
            let _ = reply.try_send(done);
        })?;
        answer.recv().await.unwrap_or_else(|_| Err(failure::closed()))
    }
}
