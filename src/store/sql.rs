//! The statements, once for each of the two tables of rows.
//!
//! `INDEXED BY` is a promise that SQLite checks: a statement whose index is gone fails, it never scans in silence.

/// What is said to one table of rows.
pub(super) struct Statements {
    pub(super) insert: &'static str,
    pub(super) remove: &'static str,
    pub(super) heads_after: &'static str,
    pub(super) content: &'static str,
    pub(super) tombstones: &'static str,
    pub(super) expired: &'static str,
    pub(super) of_scope: &'static str,
    pub(super) tail: &'static str,
    pub(super) clear: &'static str,
    pub(super) get: &'static str,
    pub(super) list_up: &'static str,
    pub(super) list_down: &'static str,
    pub(super) names_up: &'static str,
    pub(super) names_down: &'static str,
    pub(super) at: &'static str,
    pub(super) counts: &'static str,
    pub(super) dead_counts: &'static str,
    pub(super) past_counts: &'static str,
    pub(super) count: &'static str,
    pub(super) count_dead: &'static str,
    pub(super) count_system: &'static str,
    pub(super) rows_after: &'static str,
    pub(super) position: &'static str,
    pub(super) is_tombstone: &'static str,
    pub(super) is_expiring: &'static str,
    pub(super) own_name: &'static str,
    pub(super) entry_below: &'static str,
    pub(super) entry_above: &'static str,
    pub(super) name: &'static str,
}

macro_rules! heads {
    () => {
        "SELECT seq, stamp, origin, dot, flags, expires_at, hash, scope"
    };
}
macro_rules! statements {
    ($row:literal) => {
        Statements {
            insert: concat!(
                "INSERT INTO ",
                $row,
                " (seq, stamp, origin, dot, flags, expires_at, hash, scope,
                collection, key, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
            ),
            remove: concat!("DELETE FROM ", $row, " WHERE seq = ?1"),
            heads_after: concat!(heads!(), " FROM ", $row, " NOT INDEXED WHERE seq > ?1 ORDER BY seq"),
            content: concat!("SELECT scope, collection, key, value FROM ", $row, " WHERE seq = ?1"),
            tombstones: concat!(
                heads!(),
                ", collection, key, value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_tombstone
                WHERE flags & 1 AND seq > ?1 ORDER BY seq LIMIT ?2"
            ),
            expired: concat!(
                heads!(),
                ", collection, key, value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_expiry
                WHERE expires_at IS NOT NULL AND NOT flags & 1 AND expires_at >= 0 AND expires_at <= ?1
                ORDER BY expires_at, seq LIMIT ?2"
            ),
            of_scope: concat!(
                heads!(),
                ", collection, key, value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 ORDER BY collection, key"
            ),
            tail: concat!("SELECT ifnull(max(seq), 0) FROM ", $row),
            clear: concat!("DELETE FROM ", $row),
            get: concat!(
                heads!(),
                ", value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 AND collection = ?2 AND key = ?3"
            ),
            list_up: concat!(
                heads!(),
                ", key, value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 AND collection = ?2 AND key >= ?3 AND key < ?4 ORDER BY key"
            ),
            list_down: concat!(
                heads!(),
                ", key, value FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 AND collection = ?2 AND key >= ?3 AND key < ?4 ORDER BY key DESC"
            ),
            // The index alone answers these two: no row is read.
            names_up: concat!(
                "SELECT seq, key FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 AND collection = ?2 AND key >= ?3 AND key < ?4 ORDER BY key"
            ),
            names_down: concat!(
                "SELECT seq, key FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 AND collection = ?2 AND key >= ?3 AND key < ?4 ORDER BY key DESC"
            ),
            at: concat!(heads!(), ", value FROM ", $row, " NOT INDEXED WHERE seq = ?1"),
            counts: concat!(
                "SELECT collection, count(*) FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = ?1 GROUP BY collection"
            ),
            dead_counts: concat!(
                "SELECT collection, count(*) FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_tombstone
                WHERE flags & 1 AND scope = ?1 GROUP BY collection"
            ),
            past_counts: concat!(
                "SELECT collection, count(*) FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_expiry
                WHERE expires_at IS NOT NULL AND NOT flags & 1 AND expires_at >= 0 AND expires_at <= ?2
                AND scope = ?1 GROUP BY collection"
            ),
            count: concat!("SELECT count(*) FROM ", $row),
            count_dead: concat!("SELECT count(*) FROM ", $row, " INDEXED BY ", $row, "_tombstone WHERE flags & 1"),
            count_system: concat!(
                "SELECT count(*) FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key
                WHERE scope = 2 AND NOT flags & 1"
            ),
            rows_after: concat!(
                heads!(),
                ", collection, key, value FROM ",
                $row,
                " NOT INDEXED WHERE seq > ?1 ORDER BY seq"
            ),
            position: concat!(
                "SELECT seq FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key WHERE scope = ?1 AND collection = ?2 AND key = ?3"
            ),
            is_tombstone: concat!(
                "SELECT 1 FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_tombstone WHERE flags & 1 AND seq = ?1"
            ),
            is_expiring: concat!(
                "SELECT 1 FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_expiry
                WHERE expires_at IS NOT NULL AND NOT flags & 1 AND expires_at = ?1 AND seq = ?2"
            ),
            entry_below: concat!(
                "SELECT seq, scope, collection, key FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key WHERE (scope, collection, key) < (?1, ?2, ?3) ORDER BY scope DESC, collection DESC, key DESC LIMIT 1"
            ),
            entry_above: concat!(
                "SELECT seq, scope, collection, key FROM ",
                $row,
                " INDEXED BY ",
                $row,
                "_key WHERE (scope, collection, key) > (?1, ?2, ?3) ORDER BY scope, collection, key LIMIT 1"
            ),
            own_name: concat!("SELECT scope, collection, key FROM ", $row, " NOT INDEXED WHERE seq = ?1"),
            name: concat!("SELECT scope, collection, key FROM ", $row, " INDEXED BY ", $row, "_key WHERE +seq = ?1"),
        }
    };
}

/// For `row_0` and `row_1`. Which of them is in force stands in `knowledge.area`; the other is the stage.
pub(super) static ROW: [Statements; 2] = [statements!("row_0"), statements!("row_1")];

pub(super) const KNOWLEDGE: &str = "SELECT area, state FROM knowledge WHERE id = 1";
pub(super) const SET_KNOWLEDGE: &str = "UPDATE knowledge SET area = ?1, version = ?2, state = ?3 WHERE id = 1";
pub(super) const AREA: &str = "SELECT area FROM knowledge WHERE id = 1";
pub(super) const MEMBERS: &str = "SELECT device, state FROM member ORDER BY device";
pub(super) const MEMBER: &str = "SELECT state FROM member WHERE device = ?1";
pub(super) const SET_MEMBER: &str = "INSERT OR REPLACE INTO member (device, state) VALUES (?1, ?2)";
pub(super) const KEEP_RECOVERED: &str =
    "INSERT OR IGNORE INTO recovered (stamp, origin, dot, flags, expires_at, hash, scope,
    collection, key, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
/// A trace of no row: columns as in `KEEP_RECOVERED`.
pub(super) const NOTE_UNREAD: &str =
    "INSERT OR IGNORE INTO recovered (stamp, origin, dot, flags, hash, scope, collection, key, settled)
    VALUES (?1, ?2, 0, 0, x'', ?3, ?4, ?5, 1)";
/// Columns as in `DROP_RECOVERED`.
pub(super) const FORGET_UNREAD: &str =
    "DELETE FROM recovered WHERE scope = ?1 AND collection = ?2 AND key = ?3 AND origin = ?4 AND dot = 0";
pub(super) const ANY_UNREAD: &str = "SELECT EXISTS (SELECT 1 FROM recovered WHERE origin = ?1 AND dot = 0)";
pub(super) const DROP_RECOVERED: &str =
    "DELETE FROM recovered WHERE scope = ?1 AND collection = ?2 AND key = ?3 AND origin = ?4 AND dot = ?5
    RETURNING settled";
pub(super) const RECOVERED_OF: &str =
    "SELECT stamp, origin, settled FROM recovered WHERE scope = ?1 AND collection = ?2 AND key = ?3";
/// The first eight columns are those of a head.
pub(super) const RECOVERED: &str =
    "SELECT id, stamp, origin, dot, flags, expires_at, hash, scope, collection, key, value
    FROM recovered WHERE id > ?1 AND NOT settled ORDER BY id LIMIT ?2";
pub(super) const FORGET_RECOVERED: &str = "DELETE FROM recovered WHERE id = ?1";
/// The value is not needed any more; what it was is.
pub(super) const SETTLE_RECOVERED: &str = "UPDATE recovered SET settled = 1, value = NULL WHERE id = ?1";
/// So many traces of rows that were decided about are kept.
pub(super) const TRIM_SETTLED: &str = "DELETE FROM recovered WHERE settled AND id <= ?1 - 65536";
