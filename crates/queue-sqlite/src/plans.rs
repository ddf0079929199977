//! How SQLite finds jobs: never by reading the whole table, and never by sorting what it found.

use rusqlite::Connection;

use crate::{arrivals, due, forget, keys, list, refill};

#[test]
fn every_look_at_jobs_takes_the_short_way() {
    let database = Connection::open_in_memory().expect("opens");
    database.execute_batch(include_str!("../migrations/0001.sql")).expect("creates the tables");
    let looks = [
        arrivals::FORGET_PASSED,
        due::FIRST_SCHEDULED,
        forget::OLDEST,
        keys::CHUNK,
        keys::FIRST_JOB,
        keys::clean::FIRST_CHUNK,
        keys::sort::FORGET_SORTED,
        list::OLDER,
        list::OLDER_FRESH,
        refill::FRESH,
        refill::PLACED,
    ];
    for sql in looks {
        let mut explain = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
        let values = vec![1_i64; explain.parameter_count()];
        let steps = explain.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).expect(sql);
        let plan = steps.collect::<Result<Vec<_>, _>>().expect(sql).join("; ");
        assert!(plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
