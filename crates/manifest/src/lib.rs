//! kvern.toml: as written, then checked.
