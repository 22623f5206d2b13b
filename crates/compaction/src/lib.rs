//! Picking (pure), running, scheduling and pacing of flushes and compactions.
