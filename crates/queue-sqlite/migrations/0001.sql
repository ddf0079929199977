-- Schema 1. What the tables mean, and what only the code knows about them:
--
--   jobs.seq      the 63 bits of the job's id that order (milliseconds << 21 | counter); the other 53 are `random`.
--   jobs.rank     state and, for queued jobs, priority: see src/rank.rs. A running job is stored as queued.
--   jobs.pos      when the job entered its state, in Unix milliseconds: accepted, due or finished.
--   jobs.ready_at since when the job could run, or will: for how long it waited. `pos` of a queued job does not say so: it
--                 is the job's place in the queue, and that is where it was accepted.
--   jobs.input    a BLOB, or TEXT that names a file in blobs/. The same for results.body.
--   jobs.key      the hash of the idempotency key, and in `key_body` that of what came with it.
--   jobs.past     1 if `results` has a row for the job.
--
-- `jobs` rows are made once and then only overwritten in place: the columns that change keep their size. What is known
-- later goes to `results`, so that no row grows inside a full page.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('epoch', 0), ('sequence', 0), ('key_run', 0);

-- The counts are maintained in the transaction that moves a job; running jobs count as queued.
CREATE TABLE functions (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    paused    INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    queued    INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    -- What finished jobs take: input, result and log, and a little for each record.
    finished_bytes INTEGER NOT NULL
);

CREATE TABLE jobs (
    seq           INTEGER PRIMARY KEY,
    random        INTEGER NOT NULL,
    function      INTEGER NOT NULL,
    rank          INTEGER NOT NULL,
    pos           INTEGER NOT NULL,
    ready_at      INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    strikes       INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    past          INTEGER NOT NULL,
    priority      INTEGER NOT NULL,
    expires_at    INTEGER,
    content_type  TEXT,
    tags          TEXT,
    key           BLOB,
    key_body      BLOB,
    input_bytes   INTEGER NOT NULL,
    input_crc32c  INTEGER NOT NULL,
    input         NOT NULL
);

-- The one index: ready order, due times, history lists and retention. A job of rank 9 is not in it: it was queued with
-- the default priority and has not moved since, and `arrivals` finds it. See src/arrivals.rs.
CREATE INDEX place ON jobs (function, rank, pos) WHERE rank > 9;

-- Where the jobs of a function lie that one commit accepted: all of rank 9 from `first` to `last`. What else lies there
-- belongs to other functions or has moved. A row goes once none of its jobs has rank 9.
CREATE TABLE arrivals (
    function INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    PRIMARY KEY (function, first)
) WITHOUT ROWID;

CREATE TABLE results (
    seq          INTEGER PRIMARY KEY,
    started_at   INTEGER,
    attempts     TEXT NOT NULL,
    error        TEXT,
    content_type TEXT,
    bytes        INTEGER,
    crc32c       INTEGER,
    body
);

CREATE TABLE logs (
    seq    INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (seq, offset)
) WITHOUT ROWID;

-- Idempotency keys (`jobs.key`) and the jobs that they made. An entry is a hint: it may outlive its key, and the row of
-- `jobs` or `spent_keys` that it leads to decides. See src/keys/mod.rs, and src/keys/entry.rs for what `entries` holds.
-- `at` is (run << 32 | place in the run); runs are numbered from 1, and meta.key_run is the last one that is sorted.
--
-- Entries that are not sorted yet, one row for each commit that added some. Rows of runs that are sorted go little by
-- little.
CREATE TABLE new_keys (
    at      INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);

-- Entries of runs in the order of their keys; the place is the first four bytes of the first key.
CREATE TABLE key_chunks (
    at      INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);

-- Sorted runs: the newest job in each, and which keys it may have: see src/keys/filter.rs.
CREATE TABLE key_runs (
    run    INTEGER PRIMARY KEY,
    newest INTEGER NOT NULL,
    filter BLOB NOT NULL
);

-- Forgotten jobs whose keys must be kept longer, as they were.
CREATE TABLE spent_keys (
    seq    INTEGER PRIMARY KEY,
    random INTEGER NOT NULL,
    body   BLOB NOT NULL,
    rank   INTEGER NOT NULL
);

-- Waiting jobs that expire.
CREATE TABLE expiries (
    at  INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (at, seq)
) WITHOUT ROWID;

-- Attempts that have run long enough to count as interrupted if the server dies now.
CREATE TABLE started (
    seq        INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL
);

-- Running jobs that somebody asked to cancel.
CREATE TABLE cancels (
    seq INTEGER PRIMARY KEY
);

-- Files in blobs/ that a row names.
CREATE TABLE blobs (
    name TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL
) WITHOUT ROWID;
