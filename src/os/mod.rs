//! The operating system as the rest sees it: clocks, threads for slow writes, log lines, files that a group shares.

pub mod batch_thread;
pub mod clock;
pub mod group_files;
pub mod line_writer;
pub mod log_rotation;
pub mod resource_shortage;
