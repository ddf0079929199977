//! The embedded queue: SQLite behind one writer thread.
