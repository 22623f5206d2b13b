//! The write protocol: reserve, log, apply, publish, sync; testable without a database.
