//! Check: looks at everything that is stored, on a stopped server's directory, beside a running one, or in a backup, and
//! writes nothing. Beside a running server it sees what is committed; what changes while it looks is not a finding.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kvern_core::limits::FREE_BYTES_MIN;
use kvern_core::{FunctionName, JobId, Size};
use kvern_queue::FunctionStats;
use rusqlite::{Connection, Result as SqlResult};
use serde::Serialize;

use crate::backup::copy::{Hears, Progress, open_still};
use crate::backup::error::BackupError;
use crate::checksum::{Checker, Order, is_damage, keys};
use crate::finding::{Finding, Level};
use crate::lock;
use crate::queue::database;
use crate::rank::Rank;
use crate::recover;
use crate::schema::{self, SCHEMA};

/// Findings that are told one by one; more of them are counted.
pub const FINDINGS_MAX: usize = 1000;
/// Jobs whose keys are read at once.
const KEYS_MAX: usize = 512;
/// SQLite ends after so many lines.
const STRUCTURE: &str = "PRAGMA integrity_check(100)";
const STRAYS: &str = "SELECT count(*) FROM jobs WHERE rank = ?1 AND ifnull((SELECT last FROM arrivals \
     WHERE arrivals.function = jobs.function AND first <= seq ORDER BY first DESC LIMIT 1), 0) < seq";

const FIX_STRUCTURE: &str = "stop the server, keep a copy of the directory, and restore the last backup into a new one: \
     `kvern restore BACKUP --data DIR`";
const FIX_COUNTS: &str =
    "the jobs are whole, their counts are not, and a backup of now would keep that: restore the last one";
const FIX_LOST_ROW: &str = "nothing needs it any more: no job is concerned";
const FIX_UNOWNED: &str = "nothing to do: the next start of the server removes it";
const FIX_FOREIGN: &str = "Kvern never touches it: move it away";
const FIX_SPACE: &str = "make room: new jobs are refused until there is more";

/// What a check saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The schema of the database.
    pub schema: i64,
    /// Jobs that were looked at.
    pub jobs: u64,
    /// Size of the database.
    pub database_bytes: u64,
    /// Files of large payloads.
    pub files: u64,
    /// Free on the disk.
    pub free_bytes: u64,
    /// The server that works in the directory.
    pub server_pid: Option<u32>,
    /// At most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Further ones.
    pub findings_more: u64,
    /// Whether something is damaged.
    pub is_damaged: bool,
}

/// What is being looked at.
struct Subject<'a> {
    dir: &'a Path,
    blobs: PathBuf,
    connection: Connection,
    functions: Vec<FunctionName>,
    report: Report,
}

/// How far a walk over the jobs came.
struct Walked {
    key: i64,
    id: Option<JobId>,
    /// Whether the next job cannot even be found.
    is_cut_off: bool,
}

/// Looks at a data directory.
///
/// # Errors
/// [`BackupError`] if it cannot be looked at. Damage is no error.
pub fn check(dir: &Path, hears: Hears<'_>) -> Result<Report, BackupError> {
    let path = have_data(dir)?;
    let connection = schema::open_reader(&path);
    let mut report = look_at(dir, &path, connection, hears)?;
    report.free_bytes = free_bytes(dir);
    if report.free_bytes < FREE_BYTES_MIN {
        let what = format!("{} are free on the disk of the data directory", Size(report.free_bytes));
        report.add(Finding::new(Level::Warning, "space", what, FIX_SPACE));
    }
    Ok(report)
}

/// Looks at a backup, which nobody changes.
pub(crate) fn check_backup(dir: &Path, hears: Hears<'_>) -> Result<Report, BackupError> {
    let path = database(dir);
    let connection = open_still(&path);
    look_at(dir, &path, connection, hears)
}

/// The database of a data directory, if there is one.
pub(crate) fn have_data(dir: &Path) -> Result<PathBuf, BackupError> {
    let path = database(dir);
    match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => Ok(path),
        Ok(_) => Err(BackupError::NoData { dir: dir.to_owned() }),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                Err(BackupError::NoData { dir: dir.to_owned() })
            }
            _ => Err(BackupError::of_io("look at", &path, error)),
        },
    }
}

/// The schema of a database, which this program must know.
pub(crate) fn known_schema(path: &Path, connection: &Connection) -> Result<i64, BackupError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    let found: i64 = found.map_err(|error| BackupError::of_database("read", path, error))?;
    if found > SCHEMA {
        let what = format!("schema {found}, this one knows up to {SCHEMA}");
        return Err(BackupError::Newer { path: path.to_owned(), what });
    }
    if found < 1 {
        return Err(BackupError::NoData { dir: path.parent().unwrap_or(path).to_owned() });
    }
    Ok(found)
}

fn look_at(
    dir: &Path,
    path: &Path,
    connection: SqlResult<Connection>,
    hears: Hears<'_>,
) -> Result<Report, BackupError> {
    let failed = |error| BackupError::of_database("check", path, error);
    let mut report = Report::new(dir, path);
    let connection = match connection {
        Err(error) if is_damage(&error) => return Ok(report.unreadable(&error)),
        connection => connection.map_err(failed)?,
    };
    report.schema = match known_schema(path, &connection) {
        Err(BackupError::Database { source, .. }) if is_damage(&source) => return Ok(report.unreadable(&source)),
        schema => schema?,
    };
    let blobs = dir.join("blobs");
    let mut subject = Subject { dir, blobs, connection, functions: Vec::new(), report };
    for step in [Subject::structure, Subject::counts, Subject::lost_rows, Subject::strays, Subject::jobs] {
        match step(&mut subject, hears) {
            Err(error) if is_damage(&error) => subject.report.add(structure(&error.to_string())),
            done => done.map_err(failed)?,
        }
    }
    subject.files().map_err(|error| BackupError::of_io("read", &subject.blobs, error))?;
    Ok(subject.report)
}

fn structure(what: &str) -> Finding {
    Finding::new(Level::Damaged, "structure", format!("the database is damaged: {what}"), FIX_STRUCTURE)
}

fn free_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

// === impl Report ===

impl Report {
    fn new(dir: &Path, path: &Path) -> Self {
        Self {
            schema: 0,
            jobs: 0,
            database_bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            files: 0,
            free_bytes: 0,
            server_pid: lock::holder(dir),
            findings: Vec::new(),
            findings_more: 0,
            is_damaged: false,
        }
    }

    /// Adds what was found.
    pub(crate) fn add(&mut self, finding: Finding) {
        // The same page is met by several looks.
        if finding.job.is_none() && self.findings.contains(&finding) {
            return;
        }
        self.is_damaged |= finding.level == Level::Damaged;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }

    fn unreadable(mut self, error: &rusqlite::Error) -> Self {
        self.add(structure(&error.to_string()));
        self
    }
}

// === impl Subject ===

impl Subject<'_> {
    /// What SQLite says of its pages and indexes.
    fn structure(&mut self, hears: Hears<'_>) -> SqlResult<()> {
        hears(Progress { doing: "checking the structure", done: 0, of: self.report.database_bytes });
        let mut statement = self.connection.prepare(STRUCTURE)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let said: String = row.get(0)?;
            // SQLite puts several lines into a row, and a heading before them.
            let lines = said.lines().filter(|line| *line != "ok" && !line.starts_with("***"));
            lines.for_each(|line| self.report.add(structure(line)));
        }
        Ok(())
    }

    /// The functions, and whether their counts are those of their jobs: one look, so both are of one moment.
    fn counts(&mut self, hears: Hears<'_>) -> SqlResult<()> {
        hears(Progress { doing: "counting jobs", done: 0, of: self.report.database_bytes });
        let look = self.connection.unchecked_transaction()?;
        let (names, stored) = stored_counts(&look)?;
        self.functions.clone_from(&names);
        let counted = counted(&look)?;
        for (function, name) in (0..).zip(names) {
            let (stored, counted) = (stored[&function], counted.get(&function).copied().unwrap_or_default());
            if stored != counted {
                let what = format!(
                    "the counts of `{name}` are {stored:?} and its jobs {counted:?} (scheduled, queued, succeeded, failed, \
                     cancelled)"
                );
                let finding = Finding::new(Level::Damaged, "counts", what, FIX_COUNTS);
                self.report.add(Finding { function: Some(name), ..finding });
            }
        }
        Ok(())
    }

    /// Rows that belong to no job.
    fn lost_rows(&mut self, _: Hears<'_>) -> SqlResult<()> {
        for (table, sql) in [
            ("results", "SELECT count(*) FROM results WHERE seq NOT IN (SELECT seq FROM jobs)"),
            ("logs", "SELECT count(DISTINCT seq) FROM logs WHERE seq NOT IN (SELECT seq FROM jobs)"),
            ("blobs", "SELECT count(*) FROM blobs WHERE seq NOT IN (SELECT seq FROM jobs)"),
        ] {
            let lost: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
            if lost > 0 {
                let what = format!("{lost} rows of `{table}` belong to no job");
                self.report.add(Finding::new(Level::Warning, "lost_rows", what, FIX_LOST_ROW));
            }
        }
        Ok(())
    }

    /// Fresh jobs that no arrival of their function finds: nothing would ever run them.
    fn strays(&mut self, _: Hears<'_>) -> SqlResult<()> {
        let strays: i64 = self.connection.query_row(STRAYS, [Rank::fresh().get()], |row| row.get(0))?;
        if strays > 0 {
            let what = format!("{strays} waiting jobs lie where the server does not look for them");
            self.report.add(Finding::new(Level::Damaged, "strays", what, FIX_STRUCTURE));
        }
        Ok(())
    }

    /// Every stored input and result against its checksum. Where a damaged page cuts the way to the rest off, the walk goes
    /// on from the other end, so that only the jobs in between are not seen.
    fn jobs(&mut self, hears: Hears<'_>) -> SqlResult<()> {
        let up = self.walk(Order::Up, i64::MAX, hears)?;
        if !up.is_cut_off {
            return Ok(());
        }
        let down = self.walk(Order::Down, up.key, hears)?;
        let name = |id: Option<JobId>, end: &str| id.map_or_else(|| end.to_owned(), |id| format!("job {id}"));
        let (first, last) = (name(up.id, "the first one"), name(down.id, "the last one"));
        let what = format!("the jobs between {first} and {last} cannot be found: the database is damaged there");
        self.report.add(Finding::new(Level::Damaged, "lost_jobs", what, FIX_STRUCTURE));
        Ok(())
    }

    /// Looks at the jobs in this order, up to the one with this key.
    fn walk(&mut self, order: Order, end: i64, hears: Hears<'_>) -> SqlResult<Walked> {
        let of = "SELECT ifnull(sum(scheduled + queued + succeeded + failed + cancelled), 0) FROM functions";
        let of = self.connection.query_row(of, [], |row| row.get(0)).map_or(0, i64::cast_unsigned);
        let functions = &self.functions;
        let name = |function: i64| functions.get(usize::try_from(function).ok()?).cloned();
        let mut checker =
            Checker { connection: &self.connection, blobs: &self.blobs, name: &name, pace: &mut |_| true };
        let mut walked = Walked { key: order.begin(), id: None, is_cut_off: false };
        loop {
            let next = match keys(&self.connection, order, walked.key, KEYS_MAX) {
                // The nearest ones may be there.
                Err(error) if is_damage(&error) => keys(&self.connection, order, walked.key, 1),
                next => next,
            };
            let next = match next {
                Err(error) if is_damage(&error) => return Ok(Walked { is_cut_off: true, ..walked }),
                next => next?,
            };
            if next.is_empty() {
                return Ok(walked);
            }
            for key in next {
                if key == end {
                    return Ok(walked);
                }
                walked.key = key;
                let Some(looked) = checker.look(key)? else { continue };
                walked.id = looked.id.or(walked.id);
                self.report.jobs += 1;
                Finding::of_job(&looked).for_each(|finding| self.report.add(finding));
            }
            hears(Progress { doing: "checking jobs", done: self.report.jobs, of });
        }
    }

    /// Files that no row names. Those of the present life of a running server may be on their way to one.
    fn files(&mut self) -> std::io::Result<()> {
        let epoch = "SELECT value FROM meta WHERE name = 'epoch'";
        let epoch: u64 = self.connection.query_row(epoch, [], |row| row.get(0)).map_or(0, i64::cast_unsigned);
        let entries = match fs::read_dir(self.dir.join("blobs")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(life) = crate::blob::life_of(&name) else {
                let what = format!("blobs/{name} is not a file of Kvern");
                self.report.add(Finding::new(Level::Warning, "foreign_file", what, FIX_FOREIGN));
                continue;
            };
            self.report.files += 1;
            let is_on_its_way = self.report.server_pid.is_some() && life >= epoch;
            let named = self.connection.prepare_cached("SELECT 1 FROM blobs WHERE name = ?1");
            // What the database cannot say has been said.
            let is_named = named.and_then(|mut named| named.exists([&name])).unwrap_or(true);
            if !is_named && !is_on_its_way {
                let what = format!("no job names blobs/{name}");
                self.report.add(Finding::new(Level::Warning, "unowned_file", what, FIX_UNOWNED));
            }
        }
        Ok(())
    }
}

/// Jobs of a function by state: scheduled, queued, succeeded, failed, cancelled.
type ByState = [i64; 5];

fn stored_counts(connection: &Connection) -> SqlResult<(Vec<FunctionName>, BTreeMap<i64, ByState>)> {
    let known = recover::functions(connection)?;
    let by_state = |stats: &FunctionStats| {
        [stats.scheduled, stats.queued, stats.succeeded, stats.failed, stats.cancelled].map(u64::cast_signed)
    };
    let counts = (0..).zip(&known).map(|(id, (_, stats))| (id, by_state(stats))).collect();
    Ok((known.into_iter().map(|(name, _)| name).collect(), counts))
}

fn counted(connection: &Connection) -> SqlResult<BTreeMap<i64, ByState>> {
    use kvern_core::State::{Cancelled, Failed, Queued, Scheduled, Succeeded};
    let mut statement = connection.prepare("SELECT function, rank, count(*) FROM jobs GROUP BY function, rank")?;
    let mut counted: BTreeMap<i64, ByState> = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let state = Rank::from_stored(row.get(1)?).and_then(Rank::state);
        // A rank that there is not is found with its job.
        let at = [Scheduled, Queued, Succeeded, Failed, Cancelled].into_iter().position(|one| Some(one) == state);
        let Some(at) = at else { continue };
        counted.entry(row.get(0)?).or_default()[at] += row.get::<_, i64>(2)?;
    }
    Ok(counted)
}
