-- Schema 2. jobs.ready_at: since when the job could run, or will; for how long it waited. `pos` of a queued job does not
-- say so: it is the job's place in the queue, and that is where it was accepted.
--
-- The table is made anew, because a column that is added stands last, and what stands behind `input` costs a read of it.

CREATE TABLE jobs_2 (
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
    input_bytes   INTEGER NOT NULL,
    input_crc32c  INTEGER NOT NULL,
    input         NOT NULL
);

INSERT INTO jobs_2
SELECT seq, random, function, rank, pos, pos, attempts, failures, strikes, interruptions, past, priority, expires_at,
       content_type, tags, key, input_bytes, input_crc32c, input
FROM jobs;

DROP TABLE jobs;
ALTER TABLE jobs_2 RENAME TO jobs;

CREATE INDEX place ON jobs (function, rank, pos);
