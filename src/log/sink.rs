//! The place that lines are written to: stderr, or a file that is rotated by size.
//!
//! Nothing here fails towards the caller once it is open: what cannot be written is counted, and the count is written
//! with the next line that can.

use super::line::{LINE_BYTES_MAX, cut};
use crate::Error;
use crate::config::LogLevel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::format;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::string::String;

/// A log file is set aside when it reaches this size.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Files that are kept beside the current one.
const FILES_KEPT: u32 = 3;
/// How long a line waits for a slow reader of stderr, once; after that lines are dropped until it reads again.
const PATIENCE_MS: i64 = 10;

/// Takes lines. Counts those that it could not write.
pub(super) struct Sink {
    to: To,
    dropped: u64,
}

enum To {
    Stderr { journal: bool },
    File(Rotated),
}

impl Sink {
    /// stderr; with priorities where it is the journal.
    pub(super) fn stderr() -> Sink {
        Sink { to: To::Stderr { journal: is_journal() }, dropped: 0 }
    }
    /// A file, made with its folder where it is missing.
    pub(super) fn file(path: &Path) -> Result<Sink, Error> {
        let rotated = Rotated::open(path, FILE_BYTES_MAX).map_err(|error| {
            let shown = path.display();
            Error::configuration(format!("CBDDC.Logging.Path: {shown} cannot be written ({error}); name another file"))
        })?;
        Ok(Sink { to: To::File(rotated), dropped: 0 })
    }

    /// Writes the line that `render` makes; it is told whether the journal reads it.
    pub(super) fn write(&mut self, level: LogLevel, render: impl Fn(bool) -> String) {
        let journal = matches!(self.to, To::Stderr { journal: true });
        let mut line = render(journal);
        if self.dropped > 0 {
            let prefix = if journal { "<4>" } else { "" };
            line = format!("{prefix}({} log lines could not be written here)\n{line}", self.dropped);
            line.truncate(cut(&line, LINE_BYTES_MAX).len());
        }
        // Who has stopped reading is given time once; after that for critical records alone.
        let patience_ms = if self.dropped == 0 || level >= LogLevel::Critical { PATIENCE_MS } else { 0 };
        let written = match &mut self.to {
            To::Stderr { .. } => write_if_ready(io::stderr(), line.as_bytes(), patience_ms),
            To::File(rotated) => rotated.write(line.as_bytes()),
        };
        self.dropped = if written.is_ok() { 0 } else { self.dropped.saturating_add(1) };
    }
}

/// Writes a line where it is taken now, or within `patience_ms`. A line fits PIPE_BUF, so a pipe that polls as writable
/// takes it whole and does not block.
fn write_if_ready(to: impl AsFd, line: &[u8], patience_ms: i64) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: patience_ms * 1_000_000 };
    let mut ready = [PollFd::new(&to, PollFlags::OUT)];
    if poll(&mut ready, Some(&timeout))? == 0 || !ready[0].revents().contains(PollFlags::OUT) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&to, line))?;
    if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Whether stderr is the journal's own socket: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    stream.to_str().and_then(|stream| stream.split_once(':'))
        == Some((&format!("{}", stat.st_dev), &format!("{}", stat.st_ino)))
}

/// A file that moves to `….1`, `….2`, `….3` when it is full.
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Rotated {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Rotated> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Rotated { path: path.to_path_buf(), file, bytes, bytes_max })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        let written = self.file.write_all(line);
        // Part of a line may have got there.
        self.bytes += line.len() as u64;
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        for older in (1..FILES_KEPT).rev() {
            // One that is not there yet is no fault.
            let _ = fs::rename(self.numbered(older), self.numbered(older + 1));
        }
        match fs::rename(&self.path, self.numbered(1)) {
            Ok(()) => *self = Rotated::open(&self.path, self.bytes_max)?,
            // The bound holds even where nothing can be renamed.
            Err(_) => {
                self.file.set_len(0)?;
                self.bytes = 0;
            }
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("cbddc-log-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_full_file_is_set_aside_and_three_are_kept() {
        let folder = Folder::new("rotate");
        let mut rotated = Rotated::open(&folder.0.join("a/cbddc.log"), 20).unwrap();
        for number in 0..20 {
            rotated.write(format!("line {number:03}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(folder.0.join("a"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["cbddc.log", "cbddc.log.1", "cbddc.log.2", "cbddc.log.3"]);
        assert_eq!(fs::read_to_string(folder.0.join("a/cbddc.log")).unwrap(), "line 018\nline 019\n");
        assert_eq!(fs::read_to_string(folder.0.join("a/cbddc.log.1")).unwrap(), "line 016\nline 017\n");
    }

    #[test]
    fn a_file_goes_on_where_it_ended() {
        let folder = Folder::new("append");
        let path = folder.0.join("cbddc.log");
        for text in ["one\n", "two\n"] {
            let mut sink = Sink::file(&path).unwrap();
            sink.write(LogLevel::Error, |journal| {
                assert!(!journal);
                text.to_string()
            });
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn lines_that_were_lost_are_said_with_the_next_one() {
        let folder = Folder::new("lost");
        let path = folder.0.join("cbddc.log");
        let mut sink = Sink::file(&path).unwrap();
        sink.dropped = 7;
        sink.write(LogLevel::Error, |_| "next\n".to_string());
        assert_eq!(fs::read_to_string(&path).unwrap(), "(7 log lines could not be written here)\nnext\n");
        assert_eq!(sink.dropped, 0);
    }

    #[test]
    fn a_reader_that_has_stopped_reading_or_gone_away_does_not_stop_the_log() {
        let (reader, writer) = io::pipe().unwrap();
        let line = [b'x'; LINE_BYTES_MAX];
        // More than any pipe holds by default: without the poll the last of these would wait for ever.
        let taken = (0..1000).take_while(|_| write_if_ready(&writer, &line, 0).is_ok()).count();
        assert!(taken > 0 && taken < 1000);
        drop(reader);
        assert!(write_if_ready(&writer, &line, 0).is_err());
    }

    #[test]
    fn a_log_file_that_cannot_be_opened_is_a_wrong_configuration() {
        let said = Sink::file(Path::new("/dev/null/cbddc.log")).err().unwrap().to_string();
        assert!(said.starts_with("CBDDC.Logging.Path: /dev/null/cbddc.log cannot be written"), "{said}");
    }
}
