//! What must survive: a killed server, a killed function, a stop, a full disk. And what must not: processes.

mod backup;
mod backup_cut_off;
mod bit_rot;
mod cancel;
mod crashes;
mod disk_full;
mod drain;
mod file_size;
mod kill_nine;
mod leftovers;
mod on_disk_first;
mod open_files;
mod restarts;
mod runaways;
mod socket;
mod stopped;
mod versions;
mod writer_panic;
