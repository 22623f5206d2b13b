//! Ctrl-C: asked for between rows, so that a load ends after the batch at hand.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, Outcome};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C sets a flag instead of ending the process; a second one ends it.
pub(super) fn catch() -> Outcome {
    let caught = ctrlc::set_handler(|| {
        // Relaxed: the flag carries nothing but itself.
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(crate::code::INTERRUPTED.into());
        }
    });
    match caught {
        // A second load in one process, as in tests: the first handler serves both.
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(error) => Err(Failure::failed(format_args!("cannot catch Ctrl-C: {error}"))),
    }
}

/// Whether Ctrl-C was pressed.
pub(super) fn requested() -> bool {
    // Relaxed: as above.
    INTERRUPTED.load(Ordering::Relaxed)
}
