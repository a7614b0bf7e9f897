//! The one error type of the crate: what failed, whose fault it is, and the code that programs match on.
//!
//! Codes and kinds are part of the public surface and change only by adding.

use std::boxed::Box;
use std::fmt;
use std::string::String;

/// What went wrong. Unless a variant says otherwise, the state that was stored before is unchanged.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A socket, a peer or the API could not be reached. Nothing was changed.
    Network {
        /// What was tried, and the next step.
        message: String,
        /// The cause.
        source: Option<Cause>,
    },
    /// The store could not do it.
    Persistence {
        /// Which kind of failure.
        kind: PersistenceKind,
        /// What was tried, and the next step.
        message: String,
        /// The cause.
        source: Option<Cause>,
    },
    /// No such document.
    DocumentNotFound {
        /// Its collection.
        collection: String,
        /// Its key.
        key: String,
    },
    /// `If-Match` or `If-None-Match` did not hold on this node's copy. Nothing was changed.
    Concurrency {
        /// Its collection.
        collection: String,
        /// Its key.
        key: String,
    },
    /// A row or the database is damaged.
    DatabaseCorruption {
        /// What was found, and the next step.
        message: String,
        /// The cause.
        source: Option<Cause>,
    },
    /// Replication could not do it.
    Sync {
        /// What was tried, and the next step.
        message: String,
        /// The cause.
        source: Option<Cause>,
    },
    /// The change feed cannot go on from this token without missing something: begin again without one.
    TokenExpired {
        /// Why.
        message: String,
    },
    /// A configuration key, its value, and what is allowed.
    Configuration {
        /// Key, value, what is allowed.
        message: String,
    },
    /// The outcome is unknown; repeating a put or a delete is safe.
    Timeout {
        /// What was being done.
        operation: String,
        /// How long it took before nobody waited any more.
        after_ms: u64,
    },
    /// The request itself is wrong. Nothing was changed.
    Request {
        /// In which way.
        kind: RequestKind,
        /// What is wrong with it and what is allowed.
        message: String,
    },
}

/// An underlying error.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Kinds of [`Error::Persistence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PersistenceKind {
    /// No space, or the configured bound is reached.
    DiskFull,
    /// The offline queue is full.
    QueueFull,
    /// The document is larger than 256 KiB.
    DocumentTooLarge,
    /// Anything else.
    Other,
}

/// Kinds of [`Error::Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestKind {
    /// Malformed.
    BadRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// No such path.
    NoSuchRoute,
    /// No peer of that name, or none that waits to take it.
    NoSuchPeer,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Not a type that the route takes.
    UnsupportedMediaType,
    /// Too many at once.
    TooManyRequests,
}

impl Error {
    /// The code that programs match on.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Network { .. } => "NETWORK_ERROR",
            Error::Persistence { .. }
            | Error::DocumentNotFound { .. }
            | Error::Concurrency { .. }
            | Error::DatabaseCorruption { .. } => "PERSISTENCE_ERROR",
            Error::Sync { .. } | Error::TokenExpired { .. } => "SYNC_ERROR",
            Error::Configuration { .. } => "CONFIG_ERROR",
            Error::Timeout { .. } => "TIMEOUT_ERROR",
            Error::Request { .. } => "REQUEST_ERROR",
        }
    }
    /// The kind within the code, where it has one.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Error::DocumentNotFound { .. } => "DocumentNotFound",
            Error::Concurrency { .. } => "Concurrency",
            Error::TokenExpired { .. } => "TokenExpired",
            Error::DatabaseCorruption { .. } => "DatabaseCorruption",
            Error::Persistence { kind, .. } => match kind {
                PersistenceKind::DiskFull => "DiskFull",
                PersistenceKind::QueueFull => "QueueFull",
                PersistenceKind::DocumentTooLarge => "DocumentTooLarge",
                PersistenceKind::Other => return None,
            },
            Error::Request { kind, .. } => match kind {
                RequestKind::BadRequest => "BadRequest",
                RequestKind::Unauthorized => "Unauthorized",
                RequestKind::NoSuchRoute => "NoSuchRoute",
                RequestKind::NoSuchPeer => "NoSuchPeer",
                RequestKind::MethodNotAllowed => "MethodNotAllowed",
                RequestKind::UnsupportedMediaType => "UnsupportedMediaType",
                RequestKind::TooManyRequests => "TooManyRequests",
            },
            _ => return None,
        })
    }
    /// Whether it is `PERSISTENCE_ERROR` refined: not found, concurrency, corruption.
    pub fn is_persistence(&self) -> bool {
        matches!(self, Error::DocumentNotFound { .. } | Error::Concurrency { .. } | Error::DatabaseCorruption { .. })
    }
    /// A failure of the store without a kind of its own.
    pub fn persistence(message: impl Into<String>, source: impl Into<Option<Cause>>) -> Error {
        Error::Persistence { kind: PersistenceKind::Other, message: message.into(), source: source.into() }
    }
    /// A failure of the network.
    pub fn network(message: impl Into<String>, source: impl Into<Option<Cause>>) -> Error {
        Error::Network { message: message.into(), source: source.into() }
    }
    /// A wrong configuration.
    pub fn configuration(message: impl Into<String>) -> Error {
        Error::Configuration { message: message.into() }
    }
    /// A malformed request.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::Request { kind: RequestKind::BadRequest, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Network { message, .. }
            | Error::Persistence { message, .. }
            | Error::DatabaseCorruption { message, .. }
            | Error::Sync { message, .. }
            | Error::TokenExpired { message }
            | Error::Configuration { message }
            | Error::Request { message, .. } => f.write_str(message),
            Error::DocumentNotFound { collection, key } => {
                write!(f, "no document {key} in {collection}")
            }
            Error::Concurrency { collection, key } => {
                write!(f, "{key} in {collection} is not at the version that was asked for; read it again and retry")
            }
            Error::Timeout { operation, after_ms } => {
                write!(f, "{operation}: no answer after {after_ms} ms; the outcome is unknown, repeating it is safe")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Network { source, .. }
            | Error::Persistence { source, .. }
            | Error::DatabaseCorruption { source, .. }
            | Error::Sync { source, .. } => source.as_deref().map(|cause| cause as _),
            _ => None,
        }
    }
}
